"""The script of Slurm's tasks, as text and as bash executes it without Slurm."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpo.errors import ConfigurationError
from hpo.launch.slurm_script import (
    array,
    asks_for_gpus,
    checked,
    log_pattern,
    numbered,
    script,
)
from tests.support.processes import wait_until

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="it needs bash")


def written(argv: Sequence[str] = ("true",), **options: object) -> str:
    """A script of four tasks with some options."""
    return script(argv, tasks=range(4), log="/logs/w-%a.log", name="hpo-x", options=options)


def test_options_pass_through_to_the_scripts_lines():
    options = checked(
        {"partition": "gpu", "time": "4:00:00", "exclusive": True, "mail-type": "END"}
    )

    lines = written(**options).splitlines()

    assert lines[0] == "#!/bin/bash"
    for line in ("partition=gpu", "time=4:00:00", "exclusive", "mail-type=END", "array=0-3"):
        assert f"#SBATCH --{line}" in lines
    # sbatch reads no line that comes after a command.
    last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"array": "0-3"}, "--workers is the number of tasks"),
        ({"output": "x"}, "HPO_HOME"),
        ({"p": "gpu"}, "long name"),
        ({"comment": 'a"b'}, "quote"),
        ({"comment": "a\n#SBATCH --uid=0"}, "new line"),
        ({"signal": "TERM@60"}, "B:USR1@300"),
    ],
)
def test_an_option_that_would_break_a_task_is_refused(given: dict, said: str):
    with pytest.raises(ConfigurationError, match=said):
        checked(given)


@pytest.mark.parametrize(("given", "left_s"), [({}, 300), ({"signal": "B:USR1@600"}, 780)])
def test_no_worker_is_started_after_the_signal_of_the_limit(given: dict, left_s: int):
    # Slurm sends it once, and up to 60 s early.
    assert f'"$(left_s)" -gt {left_s} ]' in written(**given)


def test_an_option_for_gpus_is_known_as_one():
    assert asks_for_gpus({"gres": "gpu:a100:2"}) == "gres"
    assert asks_for_gpus({"gpus_per_task": 1}) == "gpus_per_task"
    assert asks_for_gpus({"gres": "shard:1"}) == "gres"
    assert asks_for_gpus({"gres": "nvme:1", "partition": "gpu"}) is None


def test_numbers_of_tasks_take_the_form_of_an_array():
    assert array([3, 0, 1, 2, 7]) == "0-3,7"
    assert array([5]) == "5"


def test_a_logs_name_gives_its_task_and_what_all_logs_share():
    assert log_pattern(Path("/h/100%/worker-slurm-12.log")) == ("/h/100%%/worker-slurm-%a.log", 12)
    assert log_pattern(Path("/h/new.log")) == ("/h/new.log", 0)


def executed(
    argv: Sequence[str], folder: Path, *, options: dict[str, object] | None = None
) -> subprocess.Popen[str]:
    """The script of task 3, executed as Slurm would."""
    path = folder / "script"
    path.write_text(written([numbered(word, 3) for word in argv], **(options or {})))
    own = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "7", "SLURM_JOB_ID": "10"}
    return subprocess.Popen(
        ["bash", str(path)],
        env={"PATH": os.environ["PATH"], **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def worker(folder: Path, code: str) -> list[str]:
    """A command line of a worker that notes its starts in a file and executes some code."""
    return ["bash", "-c", f"echo started >> '{folder}/starts'; {code}", "slurm:3"]


def starts(folder: Path) -> int:
    """How often a worker was started."""
    path = folder / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


@needs_bash
def test_a_command_line_reaches_bash_as_it_is(tmp_path: Path):
    words = ["a b", "it's", "$HOME", "", '"', "\\", "`id`", "*", "slurm:3", "new\nline"]
    code = "import sys; print(sys.argv[1:])"

    output, _ = executed(["python3", "-c", code, *words], tmp_path).communicate(timeout=30)

    assert output.strip() == repr(words)


@needs_bash
@pytest.mark.parametrize(
    ("code", "exits", "count"),
    [
        ("exit 0", 0, 1),
        # A trial ended each; the fifth in a row is left to the run, which retires a broken seat.
        ("exit 3", 3, 5),
        # Misconfigured, and failed by itself.
        ("exit 2", 2, 1),
        ("exit 1", 1, 1),
        # The first was killed from outside.
        (f'[ "$(wc -l < "$STARTS")" -gt 1 ] || kill -{signal.SIGKILL} $$', 0, 2),
    ],
)
def test_a_worker_is_started_again_only_where_that_may_help(
    tmp_path: Path, code: str, exits: int, count: int
):
    code = code.replace("$STARTS", f"{tmp_path}/starts")

    done = executed(worker(tmp_path, code), tmp_path)
    done.communicate(timeout=30)

    assert (done.returncode, starts(tmp_path)) == (exits, count)


@needs_bash
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_worker_by_sigterm_and_the_script_once_it_has_left(
    tmp_path: Path, number: signal.Signals
):
    saved = tmp_path / "saved"
    code = f"trap 'sleep 1; touch {saved}; exit 0' TERM; while :; do sleep .1; done"
    done = executed(worker(tmp_path, code), tmp_path)
    wait_until(lambda: starts(tmp_path) == 1)
    # Bash installs its trap a moment after the worker's first line.
    time.sleep(0.3)

    done.send_signal(number)
    done.communicate(timeout=30)

    # Without Slurm no end of the allocation is known, and so none is waited for.
    assert (done.returncode, saved.exists(), starts(tmp_path)) == (0, True, 1)


@needs_bash
def test_a_worker_that_does_not_leave_keeps_the_script(tmp_path: Path):
    done = executed(worker(tmp_path, "trap '' TERM; sleep 2; exit 1"), tmp_path)
    wait_until(lambda: starts(tmp_path) == 1)
    time.sleep(0.3)
    began_at = time.monotonic()

    for _ in range(3):
        done.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    done.communicate(timeout=30)

    assert done.returncode == 0
    assert time.monotonic() - began_at > 1
