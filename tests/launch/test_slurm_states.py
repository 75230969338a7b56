"""What Slurm's commands print, as the launcher reads it."""

from __future__ import annotations

import pytest

from hpo.errors import ConfigurationError
from hpo.launch.launcher import LOST
from hpo.launch.slurm_states import parsed, records, state

# As squeue 22.05 printed it for an array of tasks that waited, ran, and had ended in five ways, for
# waiting tasks of another that were cancelled together, for a task without its output's folder, and
# for a job that is no array.
PRINTED = """\
1|0|COMPLETED|None|0|
1|1|FAILED|NonZeroExitCode|512|
1|2|FAILED|JobLaunchFailure|9|
1|3|CANCELLED|None|15|
1|4|FAILED|JobLaunchFailure|15|
1|11|PENDING|Resources|0|
1|8|RUNNING|None|0|
1|9|COMPLETING|None|0|
2|N/A|CANCELLED|Resources|0|
3|0|FAILED|JobLaunchFailure|4021|
15|N/A|FAILED|NonZeroExitCode|32512|
"""


def test_squeues_lines_are_tasks_with_their_ends():
    found = parsed(PRINTED)

    codes = {key: one.code for key, one in found.items()}
    ended = {"1_0": 0, "1_1": 2, "1_2": -9, "1_3": -15, "1_4": -15, "3_0": 2}
    assert codes == {**ended, "1_11": None, "1_8": None, "1_9": None}
    assert [key for key, one in found.items() if not one.has_started] == ["1_11"]
    assert [key for key, one in found.items() if one.is_leaving] == ["1_9"]
    assert found["1_11"].reason == "Resources"
    assert "HPO_HOME" in found["3_0"].sentence


def test_saccts_lines_are_ended_tasks():
    # In the form of sacct's manual; no real database of jobs has printed them.
    found = records("12_0|COMPLETED|0:0\n12_1|CANCELLED by 1000|0:15\n12_2|TIMEOUT|0:0\n")

    assert {key: one.code for key, one in found.items()} == {"12_0": 0, "12_1": -15, "12_2": -15}


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
