"""What Slurm's commands print, as the launcher reads it."""

from __future__ import annotations

import pytest

from hpo.errors import ConfigurationError
from hpo.launch.launcher import LOST
from hpo.launch.slurm_queue import state

# As squeue 22.05 printed it for tasks that waited, ran, and had ended in six ways.
PRINTED = """\
"""


@pytest.mark.parametrize("word", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"])
def test_a_task_that_runs_or_will_has_no_code(word: str):
    assert state(word, "Priority", "0").code is None


@pytest.mark.parametrize(
    ("word", "status", "code"),
    [
        # squeue has a status of `wait`, and sacct code and signal.
        ("COMPLETED", "0", 0),
        ("FAILED", "512", 2),
        ("FAILED", "2:0", 2),
        ("FAILED", "9", -9),
        ("FAILED", "0:9", -9),
        ("CANCELLED", "15", -15),
        ("TIMEOUT", "0", -15),
        ("NODE_FAIL", "0", -9),
        ("OUT_OF_MEMORY", "0:125", LOST),
        ("FAILED", "0:53", ConfigurationError.exit_code),
    ],
)
def test_an_end_has_the_code_that_a_launcher_on_one_host_would_give(
    word: str, status: str, code: int
):
    found = state(word, "None", status)

    assert found.code == code
    # What the worker itself did not log is said.
    assert bool(found.sentence) == (word not in ("COMPLETED", "FAILED") or "53" in status)
