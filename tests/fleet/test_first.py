"""The first worker looks before a study exists, and a run says what it saw, or how it ended."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.processes import children, wait_until
from tests.support.program import Command, Program
from tests.support.studies import trials

OBJECTIVE = '''
"""One weight, with what a test wants in its build."""
import os, signal, sys, time
from pathlib import Path
import torch
from objectives.quadratic import Quadratic, QuadraticTask

class OwnTask(QuadraticTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        print("a line of the objective's own", flush=True)
        assert sys.stdin.read() == "", "the run's lines are not the objective's"
        with Path({built!r}).open("a") as file:
            file.write(".")
        {build}

    {hooks}

class Own(Quadratic):
    name = "own"
    def build(self, params, context):
        return OwnTask(params, context)

objective = Own()
'''
# By what is wrong: a line of build, or a hook; and the sentence.
FAULTS = {
    "copies": (
        "pass",
        "def optimizer(self): return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])",
        "the optimizer steps other parameters than the groups'",
    ),
    "no group": ("self.groups = []", "", "groups is empty"),
    "closure": (
        "pass",
        "def optimizer(self): return torch.optim.LBFGS(self.groups[0].parameters)",
        "LBFGS, whose step() computes the loss again by a closure",
    ),
    "lazy": ("self.modules = {'net': torch.nn.LazyLinear(1)}", "", "no shape before a first batch"),
    "half a step": ("self.steps_per_epoch = 0.5", "", "steps_per_epoch is 0.5"),
    "schedule": ("pass", "def schedule(self, progress): return -1.0", "schedule(0.0) is -1.0"),
    "ends": ("os._exit(0)", "", "its process ended with code 0 in build"),
    "ends as a trainer of one trial": (
        "os._exit(75)",
        "",
        "its process ended with code 75 in build",
    ),
    "crashes": (
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "",
        "its process crashed (SIGSEGV) in build",
    ),
    "hangs": ("time.sleep(1000)", "", "hung: no step for 2 s in build"),
}


def own(tmp_path: Path, build: str = "pass", hooks: str = "") -> str:
    path = tmp_path / "own.py"
    path.write_text(
        OBJECTIVE.format(built=str(tmp_path / "built"), build=build, hooks=hooks or "pass")
    )
    return str(path)


@pytest.mark.acceptance
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_a_run_with_a_sentence_before_a_study_exists(
    program: Program, command: Command, tmp_path: Path, fault: str
):
    build, hooks, told = FAULTS[fault]

    ran = program("--objective", own(tmp_path, build, hooks), "--workers", "1", "--stall", "2")
    studies = command("studies", "--json")

    assert ran.returncode == 2, ran.stderr
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr
    assert json.loads(studies.stdout) == []


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("hook", "told"),
    [
        ("problem_seed = lambda self, size: object()", "in problem_seed(): TypeError: it gave <"),
        ("settle = lambda self, *_: sys.exit(3)", "in settle(): SystemExit: 3"),
        ("settle = lambda self, *_: None", "in settle(): TypeError: 'NoneType' object is not"),
    ],
)
def test_a_hook_that_fails_before_the_study_ends_the_run_with_its_name(
    program: Program, command: Command, tmp_path: Path, hook: str, told: str
):
    path = Path(own(tmp_path))
    path.write_text(f"{path.read_text()}\nOwn.{hook}\n")

    ran = program("--objective", str(path), "--workers", "1")
    studies = command("studies", "--json")

    assert (ran.returncode, told in ran.stderr) == (2, True), ran.stderr
    assert json.loads(studies.stdout) == []


@pytest.mark.acceptance
def test_what_a_build_raises_is_a_matter_of_its_trial(program: Program, url: str, tmp_path: Path):
    path = own(tmp_path, "sys.exit(2)")

    ran = program("--objective", path, "--n_trials", "2", "--workers", "1", "--study_name", "s")

    assert ran.returncode == 1, ran.stderr
    assert "all 2 trials failed" in ran.stderr
    assert [t.user_attrs["prune_detail"] for t in trials(url, "s")] == ["SystemExit: 2"] * 2


@pytest.mark.acceptance
def test_the_worker_that_looked_trains_the_study(program: Program, url: str, tmp_path: Path):
    path = own(tmp_path)
    flags = ("--objective", path, "--n_trials", "2", "--workers", "1", "--study_name", "s")

    first = program(*flags, "--epochs_per_trial", "1")
    looked = (tmp_path / "built").stat().st_size
    same = program(*flags[:2], "--n_trials", "3", "--workers", "1", "--study_name", "s")
    again = (tmp_path / "built").stat().st_size
    Path(path).write_text(Path(path).read_text() + "\n# Edited.\n")
    edited = program(*flags[:2], "--n_trials", "4", "--workers", "1", "--study_name", "s")

    assert (first.returncode, same.returncode, edited.returncode) == (0, 0, 0), edited.stderr
    assert len(trials(url, "s")) == 4
    # One build is the look's. A study that goes on unchanged is not looked at.
    assert looked == 3
    assert again == 4
    assert (tmp_path / "built").stat().st_size == 6
    [log] = (program.home / "logs").rglob("*.log")
    assert log.read_text().count("starts\n") == 3
    assert log.read_text().count("a line of the objective's own") == 6
    assert [folder.name for folder in (program.home / "logs").iterdir()] == [log.parent.name]


@pytest.mark.acceptance
def test_two_runs_that_look_at_the_same_time_share_one_study(
    program: Program, url: str, tmp_path: Path
):
    flags = ("--objective", own(tmp_path), "--n_trials", "8", "--workers", "1")

    runs = [program.start(*flags, "--study_name", "s", "--pruner", "none") for _ in range(2)]
    said = [run.communicate(timeout=200)[1] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], said
    assert len(trials(url, "s")) == 8
    assert len(list((program.home / "logs").iterdir())) == 1


@pytest.mark.acceptance
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_ends_in_the_look_leaves_no_process_and_no_study(
    program: Program, command: Command, tmp_path: Path, end: signal.Signals, times: int
):
    run = program.start("--objective", own(tmp_path, "time.sleep(1000)"), "--workers", "1")
    wait_until((tmp_path / "built").exists)
    below = children(run.pid)

    for _ in range(times):
        os.kill(run.pid, end)
        time.sleep(0.3)
    _, said = run.communicate(timeout=60)

    assert len(below) == 2
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), timeout_s=60)
    assert "Traceback" not in said
    assert json.loads(command("studies", "--json").stdout) == []
