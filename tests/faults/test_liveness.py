"""What counts as dead, and as a loss: hangs, crashes, kills and suspensions of workers."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Program
from tests.support.studies import Held, trials

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

# One worker, so that a trial that ends it is tried again by its successor alone.
_RUN = ("--study_name", "s", "--workers", "1", "--n_trials", "3", "--seed", "1")


def objective(folder: Path, fault: str) -> Held:
    """An objective whose second configuration meets a fault at its fifth step."""
    return Held(folder, fault=f"self._number in ('2', '3') and step == 5 and {fault}")


def ended(url: str) -> list[FrozenTrial]:
    found = trials(url, "s")
    assert [trial.number for trial in found] == [0, 1, 2]
    return found


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("time.sleep(3600)", "hung: no step for "),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its process crashed (SIGSEGV) in step, held.py"),
        ("os.abort()", "its process crashed (SIGABRT) in step, held.py"),
        ("os._exit(0)", "its process ended with code 0 in step"),
        ("os._exit(2)", "its process ended with code 2 in step"),
    ],
)
def test_what_ends_its_worker_twice_fails_with_its_cause_and_the_search_goes_on(
    program: Program, url: str, tmp_path: Path, fault: str, cause: str
):
    """5, 6. Before: five deaths, or none ever; a hang held its ticket for ever."""
    held = objective(tmp_path, fault)

    ran = program("--objective", str(held.path), *_RUN, "--stall", "3")

    assert ran.returncode == 0, ran.stderr
    found = ended(url)
    assert [trial.state for trial in found][1] == TrialState.FAIL
    detail = found[1].user_attrs["prune_detail"]
    assert detail.startswith(cause)
    assert detail.endswith("(twice without a newer checkpoint)")
    assert all(t.state != TrialState.FAIL for t in (found[0], found[2]))
    # Three builds of the others and of the third attempt, which only ends the trial.
    assert held.built == 4
    if "hung" in cause:
        log = next(program.home.rglob("worker*.log")).read_text()
        assert "most recent call first" in log
        assert "held.py" in detail


@pytest.mark.parametrize("code", [0, 2])
def test_an_exit_from_an_objectives_thread_or_handler_is_a_lost_worker_too(
    program: Program, url: str, tmp_path: Path, code: int
):
    """Code 0 is no worker that has finished, and 2 none that was misconfigured."""
    adding = "step == 0 and logging.getLogger().addHandler(Ending())"
    held = Held(
        tmp_path,
        fault=f"self._number in ('2', '3') and {adding}",
        head=_ENDING.format(code=code),
    )

    ran = program("--objective", str(held.path), *_RUN)

    assert ran.returncode == 0, ran.stderr
    found = ended(url)
    assert [trial.state == TrialState.FAIL for trial in found] == [False, True, False]
    expected = f"its process ended with code {code} (twice without a newer checkpoint)"
    assert found[1].user_attrs["prune_detail"] == expected
    assert ran.stderr.count("was ended by its trial") == 2


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_trial_that_stops_its_own_worker_is_a_loss_and_not_tried_for_ever(
    program: Program, url: str, tmp_path: Path, name: str
):
    head = f"""
build = Held.build

def build_and_stop(self, params, context):
    with (FOLDER / "builds").open("a") as file:
        file.write(".")
    # The run's look at the objective builds once, and so does the first trial.
    if (FOLDER / "builds").stat().st_size in (3, 4):
        os.kill(os.getpid(), signal.{name})
    return build(self, params, context)

Held.build = build_and_stop
"""
    held = Held(tmp_path, head=head)

    ran = program("--objective", str(held.path), *_RUN)

    assert ran.returncode == 0, ran.stderr
    found = ended(url)
    assert [trial.state == TrialState.FAIL for trial in found] == [False, True, False]
    detail = found[1].user_attrs["prune_detail"]
    assert detail.startswith("a signal stopped its process that its supervisor did not pass on (tw")


# The service's own code writes the line of an epoch, so no hook runs when the process ends.
_ENDING = """
import logging

class Ending(logging.Handler):
    def emit(self, record):
        if "epoch 1/" in record.getMessage():
            os._exit({code})
"""


def test_a_suspended_trainer_does_not_hang(program: Program, url: str, held: Held):
    """6. A step is not slow while its process is stopped."""
    held.hold(2)
    process = program.start("--objective", str(held.path), *_RUN, "--stall", "2")
    wait_until(held.is_holding)
    trainer = _trainer(process.pid)

    trainer.suspend()
    began = trainer.cpu_times()
    with pytest.raises(psutil.TimeoutExpired):
        trainer.wait(timeout=6)
    assert trainer.cpu_times() == began
    trainer.resume()
    held.let_go()
    process.communicate(timeout=HANGS_S)

    assert process.returncode == 0
    assert all(trial.state != TrialState.FAIL for trial in ended(url))


@pytest.mark.parametrize("victim", ["trainer", "supervisor"])
def test_workers_killed_from_outside_count_against_no_trial(
    program: Program, url: str, held: Held, victim: str
):
    """5, 8. Before: a trial was failed after five kills, and quick kills ended the run."""
    held.hold(*range(2, 9))
    process = program.start("--objective", str(held.path), *_RUN)
    killed: set[int] = set()
    while len(killed) < 4:
        (held.folder / "holding").unlink(missing_ok=True)
        wait_until(held.is_holding)
        trainer = _trainer(process.pid)
        one = trainer if victim == "trainer" else trainer.parent()
        if one.pid not in killed:
            killed.add(one.pid)
            one.kill()
            wait_until(lambda gone=trainer: not gone.is_running() or gone.status() == "zombie")
    held.let_go()
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert all(trial.state != TrialState.FAIL for trial in ended(url))
    assert output[1].count("was killed by SIGKILL") == 4


def test_a_trial_that_takes_too_long_is_pruned_as_timeout(program: Program, url: str, held: Held):
    """6. `--trial_timeout` ends a trial, not its worker."""
    held.hold(2)

    ran = program("--objective", str(held.path), *_RUN, "--trial_timeout", "1")

    assert ran.returncode == 0, ran.stderr
    found = ended(url)[1]
    assert found.state == TrialState.PRUNED
    assert found.user_attrs["prune_reason"] == "timeout"
    assert "--trial_timeout" in found.user_attrs["prune_detail"]


def test_a_supervisor_takes_little_memory(executed: Program, held: Held):
    """The second process of a worker must not cost what the first one does."""
    held.hold(1)
    process = executed.start("--objective", str(held.path), *_RUN)
    wait_until(held.is_holding)
    supervisor = _trainer(process.pid).parent()
    taken = supervisor.memory_info().rss

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANGS_S)

    assert taken < 60e6


def _trainer(run: int) -> psutil.Process:
    """The process that trains, in a run of one worker."""

    def found() -> list[psutil.Process]:
        return [
            grandchild
            for child in psutil.Process(run).children()
            for grandchild in child.children()
            if os.getpgid(grandchild.pid) == grandchild.pid
        ]

    wait_until(found)
    return found()[-1]
