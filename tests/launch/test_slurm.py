"""A study under a real Slurm: finished exactly, whatever is signalled, killed or too late."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import slurm
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Program
from tests.support.slurm import Cluster
from tests.support.studies import states

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(slurm.refusal() is not None, reason=str(slurm.refusal())),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm.cluster() as made:
        yield made


# Trials of two seconds or more, with a line in a file for each that is begun and each that is done.
_NOTED = """
import os, time
from objectives.quadratic import Quadratic, QuadraticTask

def note(word, x):
    # One write of O_APPEND is one line, whoever else writes and whoever is killed.
    file = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, f"{{word}} {{x!r}}\\n".encode())
    os.close(file)

class NotedTask(QuadraticTask):
    epoch, is_begun = 0, False

    def batch(self, step):
        time.sleep({step_s})
        # A run's first look at an objective ends before.
        if step > 1 and not self.is_begun:
            self.is_begun = True
            note("begun", self.x)
        self.epoch = 1 + step // self.steps_per_epoch
        return super().batch(step)

    def validate(self):
        if self.epoch == self.epochs:
            note("done", self.x)
        return super().validate()

class Noted(Quadratic):
    name = "noted"

    def build(self, params, context):
        task = NotedTask(params, context)
        task.x, task.epochs = dict(params), context.epochs
        return task

objective = Noted()
"""


class Diary:
    """An objective that notes its trials in a file, and that file's account."""

    def __init__(self, folder: Path, *, step_s: float = 0.1) -> None:
        self.path, self._notes = folder / "noted.py", folder / "notes"
        self.path.write_text(_NOTED.format(path=str(self._notes), step_s=step_s))

    def count(self, word: str) -> Counter[str]:
        """How often each configuration was begun, or done."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return Counter(line.partition(" ")[2] for line in lines if line.startswith(word))


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path)


@pytest.fixture
def submitting(program: Program, cluster: Cluster) -> Program:
    """The program where Slurm's commands reach the cluster."""
    program.environment |= cluster.environment
    return program


def arguments(diary: Diary, trials: int, *more: str) -> tuple[str, ...]:
    return (
        *("run", "--objective", str(diary.path), "--study_name", "s", "--n_trials", str(trials)),
        *(
            "--epochs_per_trial",
            "3",
            "--pruner",
            "none",
            "--set",
            "lr=0.01",
            "--launcher",
            "slurm",
            "--workers",
            "2",
        ),
        *("--gpus_per_worker", "0", "--slurm_partition", "debug", *more),
    )


def test_a_study_ends_exactly_though_a_task_is_signalled_and_a_worker_killed(
    submitting: Program, cluster: Cluster, url: str, diary: Diary
):
    password = url.partition("@")[0].rpartition(":")[2]
    process = submitting.start(*arguments(diary, 8, "--slurm_time", "30"))
    wait_until(lambda: len(diary.count("begun")) == 2 or process.poll() is not None)
    tasks = cluster.tasks()

    # What Slurm and this host show to others while the workers run.
    shown = cluster.said("scontrol", "show", "job", "--details", "--all")
    shown += cluster.said("scontrol", "write", "batch_script", tasks[0], "-")
    shown += cluster.said("ps", "-eo", "args") + cluster.readable_by("nobody")
    cluster.said("scancel", "--signal=USR1", "--batch", tasks[0])
    cluster.kill_worker(tasks[1])
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output
    assert states(url, "s") == {"COMPLETE": 8}
    done = diary.count("done")
    assert (len(done), set(done.values())) == (8, {1})
    # Both workers were started again inside their allocation: there was one array of two tasks.
    assert "hpo worker" in shown
    assert len(tasks) == 2
    assert cluster.tasks(states="all") == tasks
    logs = "".join(path.read_text() for path in submitting.home.rglob("*.log"))
    assert logs.count("it is started again in job") == 1
    # Nothing of this has the password, which the tasks had in their environment alone.
    assert password not in shown + logs + "".join(output)
    assert "#SBATCH --time=30" in shown


def test_ctrl_c_ends_the_tasks_and_the_same_command_goes_on(
    submitting: Program, cluster: Cluster, url: str, diary: Diary
):
    # There is a place for one of the two: the other task waits in the queue.
    command = arguments(diary, 2, "--slurm_cpus_per_task", "5")
    process = submitting.start(*command)
    wait_until(lambda: len(diary.count("begun")) == 1 or process.poll() is not None)
    waiting = cluster.tasks("pending")

    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=HANGS_S)
    left = cluster.tasks()
    again = submitting(*command)

    assert (process.returncode, again.returncode) == (130, 0), (output, again.stderr)
    assert (len(waiting), left) == (1, [])
    done = diary.count("done")
    assert (len(done), set(done.values())) == (2, {1})
    # The interrupted one went on from its checkpoint, with a further line at its second beginning.
    assert sorted(diary.count("begun").values()) == [1, 2]


def test_a_storage_on_this_host_is_refused_where_the_partition_has_others(
    submitting: Program, diary: Diary
):
    done = submitting(*arguments(diary, 1), "--slurm_partition", "wide")

    assert done.returncode == 2
    assert "the storage is on this host alone" in done.stderr
    assert "far1" in done.stderr


def test_workers_with_gpus_are_refused_where_the_partition_has_none(
    submitting: Program, diary: Diary
):
    words = [word for word in arguments(diary, 1) if word not in ("--gpus_per_worker", "0")]

    done = submitting(*words)

    assert done.returncode == 2
    assert "partition 'debug' has no GPU; write --gpus_per_worker 0" in done.stderr


def test_what_slurm_refuses_is_said_and_no_trial_is_begun(
    submitting: Program, cluster: Cluster, diary: Diary
):
    before = cluster.tasks(states="all")

    done = submitting(*arguments(diary, 1), "--slurm_qos", "no-such", "--slurm_time", "never")

    assert done.returncode == 1
    assert "Slurm refuses the job" in done.stderr
    assert cluster.tasks(states="all") == before


def test_a_dry_run_submits_nothing_and_creates_no_study(
    submitting: Program, cluster: Cluster, diary: Diary, url: str
):
    before = cluster.tasks(states="all")

    done = submitting(*arguments(diary, 5), "--dry_run")
    listed = submitting("studies", "--json")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=hpo-")
    assert "#SBATCH --array=0-1\n" in done.stdout
    assert json.loads(listed.stdout) == []
    assert cluster.tasks(states="all") == before
