"""What a user decides of a search: parameters, ranges, samplers, pruners, joining a study."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpo import settings
from hpo.settings import StudyConfig
from objectives import ris_covariance
from tests.conftest import Program, wait_until
from tests.test_cli import SLOW, begun, states

ONE = ("--objective", "quadratic", "--epochs_per_trial", "4", "--workers", "1")

SETTINGS = {
    **{"objective": "ris_covariance", "source": "-", "metric": "J_db", "direction": "minimize"},
    **{"size": "tiny", "epochs": 12, "precision": "fp32", "problem_seed": 5, "seed": 0},
    **{"sampler": "tpe", "pruner": "none"},
}

FILE = """
from objectives import Float
from objectives.quadratic import Quadratic

class Mine(Quadratic):
    name = "mine"
    spaces = {"wide": {
        "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
        "curvature": Float(low=0.5, high=2.0, default=1.0),
    }}

objective = Mine()
"""


def load(url: str, study: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study, storage=url).get_trials()


def test_parameters_are_fixed_and_narrowed_and_a_study_is_changed_by_force_alone(
    program: Program, url: str
):
    own = ("--set", "curvature=1.5", "--range", "lr=1e-3,1e-1")
    first = program(*ONE, "--study_name", "s", "--n_trials", "5", *own)
    refused = program("--study_name", "s", "--n_trials", "6", "--set", "curvature=1")
    forced = program("--study_name", "s", "--n_trials", "7", "--set", "curvature=1", "--force")
    other_scale = program("--study_name", "s", "--range", "lr=0.001,0.1,linear", "--force")
    inherited = program("--study_name", "s", "--n_trials", "8", "--workers", "1")

    assert first.returncode == forced.returncode == inherited.returncode == 0, first.stderr
    assert "curvature=1.5; lr in 0.001 to 0.1, log" in first.stderr
    assert refused.returncode == 2
    assert "curvature 1.5 (now 1)" in refused.stderr
    assert "--study_name" in refused.stderr
    assert "--force" in refused.stderr
    assert other_scale.returncode == 2
    assert "lr" in other_scale.stderr
    trials = load(url, "s")
    assert [trial.params["curvature"] for trial in trials] == [1.5] * 5 + [1.0] * 3
    assert all(1e-3 <= trial.params["lr"] <= 1e-1 for trial in trials)
    assert trials[0].params["lr"] == 1e-2
    assert all("forced" not in trial.user_attrs for trial in trials[:5])
    assert all(trial.user_attrs["forced"]["curvature"] == ["1.5", "1"] for trial in trials[5:])


def test_an_objectives_file_may_move_and_its_space_may_not_change_unnoticed(
    program: Program, url: str, tmp_path: Path
):
    here, there = tmp_path / "mine.py", tmp_path / "moved.py"
    here.write_text(FILE)
    name = ("--study_name", "s", "--workers", "1", "--epochs_per_trial", "2")
    first = program("--objective", str(here), *name, "--n_trials", "1")
    here.rename(there)
    moved = program("--objective", str(there), *name, "--n_trials", "2")
    there.write_text(FILE.replace("low=0.5", "low=0.7"))
    changed = program("--study_name", "s", "--n_trials", "3")
    there.write_text(FILE + "\n# A remark.\n")
    remarked = program("--study_name", "s", "--n_trials", "3")
    there.write_text(FILE.replace('name = "mine"', 'name = "mine"\n    direction = "maximize"'))
    turned = program("--study_name", "s", "--n_trials", "4", "--force")

    assert first.returncode == moved.returncode == remarked.returncode == 0, moved.stderr
    assert changed.returncode == 2
    assert "curvature 0.5 to 2 (now 0.7 to 2)" in changed.stderr
    assert "leave" not in changed.stderr
    assert "has changed since study 's' was created" in remarked.stderr
    assert turned.returncode == 2
    assert "--force cannot change direction" in turned.stderr
    assert len(load(url, "s")) == 3


def test_another_file_with_the_same_names_and_another_space_of_choices_are_noticed(
    program: Program, url: str, tmp_path: Path
):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text(FILE)
    other.write_text(FILE.replace('name = "mine"', 'name = "mine"\n    """Another."""'))
    name = ("--study_name", "s", "--workers", "1", "--epochs_per_trial", "1")
    program("--objective", str(one), *name, "--n_trials", "1")

    refused = program("--objective", str(other), *name, "--n_trials", "2")
    forced = program("--objective", str(other), *name, "--n_trials", "2", "--force")

    assert refused.returncode == 2
    assert str(one) in refused.stderr
    assert str(other) in refused.stderr
    assert forced.returncode == 0, forced.stderr
    assert load(url, "s")[1].user_attrs["forced"] == {"objective": [str(one), str(other)]}


def test_a_space_with_other_choices_cannot_be_forced():
    wide, narrow = (
        StudyConfig(
            **{**SETTINGS, "space": space},
            parameters=settings.facts(ris_covariance.objective, {**SETTINGS, "space": space})[
                "parameters"
            ],
        )
        for space in ("wide", "narrow")
    )

    (difference,) = settings.differences(wide, narrow, {"space": "narrow"})

    assert str(difference) == "--space wide (now narrow)"
    assert not difference.can_be_forced


def test_a_sampler_and_a_pruner_of_ones_own_are_used(program: Program, url: str):
    ran = program(
        *(*ONE, "--study_name", "s", "--n_trials", "3"),
        *("--sampler", "tests.own_search:Fixed", "--pruner", "tests.own_search:half"),
        *("--range", "lr=1e-3,1e-2,linear"),
    )

    assert ran.returncode == 0, ran.stderr
    trials = load(url, "s")
    assert [trial.params["lr"] for trial in trials[1:]] == pytest.approx([0.00325] * 2)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] + [TrialState.PRUNED] * 2
    assert [trial.last_step for trial in trials] == [4, 2, 2]


def test_checkpoints_that_are_removed_meanwhile_cost_no_trial(
    program: Program, url: str, tmp_path: Path
):
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    command = ("--objective", str(path), "--study_name", "s", "--n_trials", "3", "--workers", "1")
    process = program.start(*command)
    wait_until(lambda: begun(url, "s") >= 2)
    shutil.rmtree(program.home / "checkpoints", ignore_errors=True)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    shutil.rmtree(program.home / "checkpoints", ignore_errors=True)

    resumed = program(*command)

    assert resumed.returncode == 0, resumed.stderr
    assert sum(states(url, "s").values()) == 3
    assert "FAIL" not in states(url, "s")


# Shifts the wall clock of the process that loads it; the monotonic one stays.
SHIFT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <sys/time.h>
#define SHIFT_S 7200
int clock_gettime(clockid_t id, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    if (id == CLOCK_REALTIME) t->tv_sec += SHIFT_S;
    return r;
}
time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
"""


def test_a_host_whose_clock_is_two_hours_ahead_takes_no_trial_from_another(
    program: Program, url: str, tmp_path: Path
):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to shift a process's clock with")
    source, shim, path = tmp_path / "shift.c", tmp_path / "shift.so", tmp_path / "slow.py"
    source.write_text(SHIFT)
    path.write_text(SLOW)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    command = ("--objective", str(path), "--study_name", "s", "--n_trials", "6", "--workers", "1")
    ahead = Program(url, tmp_path / "ahead")
    ahead.environment["LD_PRELOAD"] = str(shim)

    both = [program.start(*command), ahead.start(*command)]
    outputs = [process.communicate(timeout=120) for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    trials = load(url, "s")
    starts = sorted(trial.datetime_start.timestamp() for trial in trials)
    # Both hosts worked, and their clocks did differ.
    assert starts[-1] - starts[0] > 7000
    assert len(trials) == 6
    assert not os.environ.get("LD_PRELOAD")
    assert "FAIL" not in states(url, "s")
    assert all("another takes over" not in output[1] for output in outputs)
