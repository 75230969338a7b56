"""Processes that a trial started end with it: at its end, after a grace, and whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.leaving import KINDS
from tests.support.processes import children, wait_until
from tests.support.program import ROOT, Program
from tests.support.studies import STUDY

pytestmark = pytest.mark.acceptance

LEAVING = (
    *("--objective", str(ROOT / "tests" / "support" / "leaving.py"), "--study_name", "leaving"),
    *("--workers", "1", "--epochs_per_trial", "1", "--pruner", "none", "--sampler", "random"),
)


def pids(folder: Path) -> list[int]:
    return [int(pid) for file in folder.glob("*.pids") for pid in file.read_text().split()]


def living(found: list[int]) -> list[int]:
    def lives(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    return [pid for pid in found if lives(pid)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "pids"
    found.mkdir()
    yield found
    for pid in living(pids(found)):
        os.kill(pid, signal.SIGKILL)


def test_the_processes_of_a_trial_end_with_it(program: Program, folder: Path):
    ran = program(*LEAVING, "--folder", str(folder), "--n_trials", "3")

    assert ran.returncode == 0, ran.stderr
    assert len(pids(folder)) == 3 * KINDS
    # As the last trial found them, and after the run.
    assert (folder / "earlier").read_text() == "[]"
    assert living(pids(folder)) == []


def test_after_the_grace_no_process_is_left(program: Program, folder: Path):
    run = program.start(
        *LEAVING, "--folder", str(folder), "--hang", "yes", "--n_trials", "1", "--grace", "1"
    )
    wait_until(lambda: len(pids(folder)) == KINDS)
    below = children(run.pid)

    run.send_signal(signal.SIGINT)
    run.communicate(timeout=120)

    assert living([*below, *pids(folder)]) == []


VICTIMS = {
    "the trainer": ("trainer",),
    "the supervisor": ("supervisor",),
    "the whole worker": ("supervisor", "trainer"),
    "the run": ("run",),
    "the run and the supervisor": ("run", "supervisor"),
    "all of them": ("run", "supervisor", "trainer"),
}


@pytest.mark.parametrize("who", VICTIMS)
def test_whoever_is_killed_no_process_of_the_trial_is_left(
    url: str, tmp_path: Path, folder: Path, who: str
):
    # The environment of a fork would be that of this process, and have no mark.
    program = Program(url, tmp_path / "home", is_executed=True)
    run = program.start(*LEAVING, "--folder", str(folder), "--hang", "yes", "--n_trials", "1")
    try:
        wait_until(lambda: len(pids(folder)) == KINDS)
        begun = pids(folder)
        assert living(begun) == begun
        (supervisor,) = psutil.Process(run.pid).children()
        (trainer,) = supervisor.children()
        found = {"run": run.pid, "supervisor": supervisor.pid, "trainer": trainer.pid}

        for name in VICTIMS[who]:
            os.kill(found[name], signal.SIGKILL)

        # A trainer that hangs has 15 s after its supervisor's end, 30 s after its run's.
        wait_until(lambda: not living(begun), timeout_s=90)
        if who != "the trainer":
            wait_until(lambda: not living([trainer.pid]), timeout_s=90)
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGINT)
            run.send_signal(signal.SIGINT)
        run.communicate(timeout=120)
    # A successor may have begun; it ends with the run.
    wait_until(lambda: not living(pids(folder)), timeout_s=90)


def test_what_a_script_started_before_it_executed_the_worker_is_left(finished):
    """As a tunnel to the database."""
    program: Program = finished("quadratic")
    script = (
        f"sleep 1000 >/dev/null & echo $!; exec {sys.executable} -m hpo worker --study_name {STUDY}"
    )

    ran = subprocess.run(
        ["bash", "-c", script],
        env=program.environment,
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=200,
    )

    sidecar = int(ran.stdout.split()[0])
    # The keeper ends what it ends within a second.
    time.sleep(1.5)
    assert living([sidecar]) == [sidecar]
    os.kill(sidecar, signal.SIGKILL)
    assert ran.returncode == 0
