"""A Slurm that hangs, refuses or hides tasks: a run goes on, ends in time, and says what is left.

Programs of this test stand in for Slurm's commands, as a controller that hangs at a given moment
cannot be had from a real one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpo import environ
from hpo.errors import ConfigurationError
from hpo.launch import slurm as launch_slurm
from hpo.launch import slurm_queue, slurm_task
from hpo.launch.slurm import SlurmLauncher
from hpo.launch.slurm_task import SlurmTask
from hpo.launch.supervisor import Supervisor
from hpo.machine.slots import Slot
from tests.support.processes import wait_until

_PROGRAM = """\
#!/bin/sh
cd {folder}
echo "$(basename "$0") $*" >> calls
env > "$(basename "$0").env"
[ ! -e "$(basename "$0").hangs" ] || exec sleep 60
if [ -e "$(basename "$0").fails" ]; then cat "$(basename "$0").fails" >&2; exit 1; fi
cat "$(basename "$0").says" 2> /dev/null || true
touch "$(basename "$0").done"
"""


class Slurm:
    """Slurm's commands, as files tell them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "scancel"):
            program = folder / name
            program.write_text(_PROGRAM.format(folder=folder))
            program.chmod(0o755)
        self.tell("sbatch.says", "7")

    def tell(self, name: str, text: str = "") -> None:
        # It is replaced at once, because a program may read it meanwhile.
        (self.folder / "told").write_text(text)
        (self.folder / "told").rename(self.folder / name)

    def states(self, word: str, count: int) -> None:
        self.tell("squeue.says", "".join(f"7|{i}|{word}|None|0\n" for i in range(count)))

    def calls(self, name: str) -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(name)]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    made = tmp_path / "bin"
    made.mkdir()
    monkeypatch.setenv("PATH", f"{made}:{environ.variables()['PATH']}")
    monkeypatch.setattr(slurm_queue, "ANSWER_S", 1.0)
    monkeypatch.setattr(slurm_task, "_CANCELLED_S", 2.0)
    monkeypatch.setattr(launch_slurm, "_CLOSED_S", 2.0)
    return Slurm(made)


@pytest.fixture
def launcher(slurm: Slurm) -> SlurmLauncher:
    return SlurmLauncher(environ.variables(), {})


def started(launcher: SlurmLauncher, logs: Path, count: int) -> Supervisor:
    supervisor = Supervisor(launcher)
    for i in range(count):
        name = f"slurm:{i}"
        slot = Slot(name=name, device="cpu", environment=())
        log = logs / "0f0e0d0c" / f"worker-slurm-{i}.log"
        supervisor.start(name, slot, ["worker", "--slot", name], log=log)
    return supervisor


def tasks(supervisor: Supervisor) -> list[SlurmTask]:
    return [one.launched for one in supervisor.running.values()]  # type: ignore[misc]


def until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    """Poll as a fleet does until something holds."""

    def holds() -> bool:
        supervisor.take()
        return condition()

    wait_until(holds)


@pytest.mark.parametrize("command", ["sbatch", "squeue"])
def test_a_run_does_not_wait_for_a_command_that_hangs(
    slurm: Slurm, launcher: SlurmLauncher, tmp_path: Path, command: str
):
    slurm.tell(f"{command}.hangs")
    slurm.states("RUNNING", 2)
    supervisor = started(launcher, tmp_path, 2)
    supervisor.take()
    until(supervisor, lambda: bool(slurm.calls(command)))

    began = time.monotonic()
    for _ in range(5):
        supervisor.take()
    took_s = time.monotonic() - began

    (slurm.folder / f"{command}.hangs").unlink()
    launcher.close()
    assert took_s < 0.5


def test_a_run_ends_in_time_and_names_what_is_left_however_many_tasks_do_not_answer(
    slurm: Slurm, launcher: SlurmLauncher, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    count = 20
    slurm.states("RUNNING", count)
    supervisor = started(launcher, tmp_path, count)
    until(supervisor, lambda: all(task.began_at for task in tasks(supervisor)))
    for command in ("squeue", "scancel"):
        slurm.tell(f"{command}.hangs")

    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        supervisor.end(threading.Event(), grace_s=0.5, note=lambda _: None)
        launcher.close()
    took_s = time.monotonic() - began

    # The grace, the time of a kill, and a command of each kind.
    assert took_s < 10
    assert "tasks may be left in Slurm; 'scancel --name=hpo-0f0e0d0c' ends them" in caplog.text


def test_tasks_that_run_are_asked_to_stop_once_slurm_answers_again(
    slurm: Slurm, launcher: SlurmLauncher, tmp_path: Path
):
    slurm.states("RUNNING", 2)
    supervisor = started(launcher, tmp_path, 2)
    until(supervisor, lambda: all(task.began_at for task in tasks(supervisor)))
    slurm.tell("scancel.fails", "scancel: error: Unable to contact slurm controller")

    for task in tasks(supervisor):
        task.stop()
    until(supervisor, lambda: bool(slurm.calls("scancel")))
    (slurm.folder / "scancel.fails").unlink()
    until(supervisor, (slurm.folder / "scancel.done").exists)
    slurm.states("COMPLETED", 2)
    until(supervisor, lambda: not supervisor.running)

    launcher.close()
    assert slurm.calls("scancel")[-1] == "scancel --batch --signal=TERM 7_0 7_1"


def test_a_task_that_is_queued_again_has_no_successor_before_it_is_cancelled(
    slurm: Slurm, launcher: SlurmLauncher, tmp_path: Path
):
    slurm.states("RUNNING", 1)
    supervisor = started(launcher, tmp_path, 1)
    until(supervisor, lambda: all(task.began_at for task in tasks(supervisor)))
    slurm.tell("scancel.fails", "scancel: error: Unable to contact slurm controller")

    slurm.states("PENDING", 1)
    until(supervisor, lambda: bool(slurm.calls("scancel")))
    seen = len(supervisor.running)
    (slurm.folder / "scancel.fails").unlink()
    until(supervisor, lambda: not supervisor.running)

    launcher.close()
    assert seen == 1


def test_the_first_array_that_slurm_refuses_ends_the_run_with_its_sentence(
    slurm: Slurm, launcher: SlurmLauncher, tmp_path: Path
):
    slurm.tell("sbatch.fails", "sbatch: error: invalid partition specified: none")
    supervisor = started(launcher, tmp_path, 2)

    with pytest.raises(ConfigurationError, match="invalid partition specified: none"):
        until(supervisor, lambda: not supervisor.running)
    supervisor.end(threading.Event(), grace_s=0.5, note=lambda _: None)
    launcher.close()

    assert len(slurm.calls("sbatch")) == 1


def test_a_users_defaults_for_slurms_commands_reach_none_of_them(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # With the first squeue would show none of our tasks, with the second sbatch would not return.
    defaults = ("SQUEUE_PARTITION", "SBATCH_WAIT", "SBATCH_OUTPUT", "SCANCEL_INTERACTIVE")
    for name in defaults:
        monkeypatch.setenv(name, "default")
    monkeypatch.setenv("OUTPUT", "the user's own")
    launcher = SlurmLauncher(environ.variables(), {})
    slurm.states("COMPLETED", 1)
    supervisor = started(launcher, tmp_path, 1)
    until(supervisor, lambda: not supervisor.running)
    slurm_queue.cancel(["7_0"])

    launcher.close()
    found = {name: (slurm.folder / f"{name}.env").read_text() for name in ("sbatch", "squeue")}
    found["scancel"] = (slurm.folder / "scancel.env").read_text()
    assert "SQUEUE_" not in found["sbatch"] + found["squeue"] and "SBATCH_" not in found["sbatch"]
    assert "SCANCEL_" not in found["scancel"]
    assert "OUTPUT=the user's own" in found["sbatch"]
