"""A user's control of a search: parameters, ranges, samplers, pruners, joining a study."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpo.database.connection import connect
from hpo.errors import ConfigurationError, ObjectiveError, StudyMismatch
from hpo.search.narrowing import value_of
from hpo.study import config, study
from hpo.study.config import StudyConfig
from hpo.study.join import Prepared, prepare_study
from hpo.study.request import RunRequest
from objectives import Choice, ris_covariance
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Command, Program
from tests.support.studies import Held, states

ONE = ("--objective", "quadratic", "--epochs_per_trial", "4", "--workers", "1")

SETTINGS = {
    **{"objective": "ris_covariance", "source": "-", "metric": "J_db", "direction": "minimize"},
    **{"size": "tiny", "epochs_per_trial": 12, "precision": "fp32", "problem_seed": 5, "seed": 0},
    **{"sampler": "tpe", "pruner": "none", "on_precision_range": "prune"},
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


@pytest.mark.acceptance
def test_parameters_are_fixed_and_narrowed_and_a_study_is_changed_by_force_alone(
    program: Program, command: Command, url: str
):
    own = ("--set", "curvature=1.5", "--range", "lr=1e-3,1e-1")
    first = program(*ONE, "--study_name", "s", "--n_trials", "5", *own)
    refused = command("--study_name", "s", "--n_trials", "6", "--set", "curvature=1")
    forced = program("--study_name", "s", "--n_trials", "7", "--set", "curvature=1", "--force")
    other_scale = command("--study_name", "s", "--range", "lr=0.001,0.1,linear", "--force")

    assert first.returncode == forced.returncode == 0, first.stderr
    assert "curvature=1.5; lr in 0.001 to 0.1, log" in first.stderr
    assert refused.returncode == 2
    assert "curvature 1.5 (now 1)" in refused.stderr
    assert "--study_name" in refused.stderr
    assert "--force" in refused.stderr
    assert other_scale.returncode == 2
    assert "lr" in other_scale.stderr
    trials = load(url, "s")
    assert [trial.params["curvature"] for trial in trials] == [1.5] * 5 + [1.0] * 2
    assert all(1e-3 <= trial.params["lr"] <= 1e-1 for trial in trials)
    assert trials[0].params["lr"] == 1e-2
    assert all("forced" not in trial.user_attrs for trial in trials[:5])
    assert all(trial.user_attrs["forced"]["curvature"] == ["1.5", "1"] for trial in trials[5:])


def join(url: str, **asked: object) -> Prepared:
    """The study as a run would create or join it, without workers."""
    return prepare_study(connect(url), RunRequest(study_name="s", **asked), on_gpu=False)


def test_files_and_folders_of_a_run_are_stored_with_its_study(url: str, tmp_path: Path):
    file, folder = tmp_path / "environment.json", tmp_path / "checkpoints"

    made = join(url, objective="quadratic", runtime_env=file, checkpoint_dir=folder)

    stored = study.last_run(made.opened)
    assert (stored["runtime_env"], stored["checkpoint_dir"]) == (str(file), str(folder))


def test_an_objectives_file_may_move_and_its_space_may_not_change_unnoticed(
    url: str, tmp_path: Path
):
    here, there = tmp_path / "mine.py", tmp_path / "moved.py"
    here.write_text(FILE)
    join(url, objective=str(here), n_trials=1)
    here.rename(there)

    moved = join(url, objective=str(there))
    with pytest.raises(ObjectiveError, match="does not exist"):
        # Another host may have the file where it was, so the study does not follow it by itself.
        join(url)
    there.write_text(FILE.replace("low=0.5", "low=0.7"))
    with pytest.raises(StudyMismatch) as changed:
        join(url, objective=str(there))
    there.write_text(FILE + "\n# A remark.\n")
    forced = join(url, objective=str(there), force=True)
    remembered = join(url)
    there.write_text(FILE.replace('name = "mine"', 'name = "mine"\n    direction = "maximize"'))
    with pytest.raises(StudyMismatch, match=r"--force cannot change direction"):
        join(url, force=True)

    assert moved.objective == str(there)
    assert moved.opened.config.objective == str(here)
    assert "the same objective's file as" in moved.notes[0]
    assert "curvature 0.5 to 2 (now 0.7 to 2)" in str(changed.value)
    assert "leave" not in str(changed.value)
    assert "has changed since study 's' was created" in forced.notes[0]
    assert remembered.objective == str(there)


def test_another_file_with_the_same_names_is_noticed(url: str, tmp_path: Path):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text(FILE)
    other.write_text(FILE.replace('name = "mine"', 'name = "mine"\n    """Another."""'))
    join(url, objective=str(one), n_trials=1)

    with pytest.raises(StudyMismatch) as refused:
        join(url, objective=str(other))
    forced = join(url, objective=str(other), force=True).opened.config

    assert f"--objective {one} (now {other})" in str(refused.value)
    assert forced.forced == {"objective": [str(one), str(other)]}
    assert forced.revision == 1


def test_a_refused_run_changes_nothing(url: str):
    created = join(url, objective="quadratic", n_trials=3, ranges={"lr": "0.001,0.1"})
    same = join(url, ranges={"lr": "0.001,0.1,log"})

    for asked in (
        {"epochs_per_trial": 3, "force": True, "enqueue": [{"lr": 7}]},
        {"epochs_per_trial": 3, "force": True, "enqueue": [{"lr": n / 100} for n in range(1, 9)]},
        {"epochs_per_trial": 3, "force": True, "sampler": "no_module:X"},
    ):
        with pytest.raises(ConfigurationError):
            join(url, **asked)
        assert study.refreshed(created.opened).config == created.opened.config
        assert created.tickets.count().total == 3
        assert created.tickets.queue.free() == 2
    with created.tickets.held_still():
        pass
    assert same.opened.config == created.opened.config
    assert same.opened.config.revision == 0


def test_a_study_of_before_a_setting_has_the_settings_default():
    config_of_all = StudyConfig(**SETTINGS, space="wide")
    stored = config_of_all.stored()
    del stored["on_precision_range"]

    assert "epochs_per_trial" not in stored
    assert StudyConfig.from_stored({**stored, "later": 1}) == config_of_all


def test_a_space_with_other_choices_cannot_be_forced():
    wide, narrow = (
        StudyConfig(
            **{**SETTINGS, "space": space},
            parameters=config.facts(ris_covariance.objective, {**SETTINGS, "space": space})[
                "parameters"
            ],
        )
        for space in ("wide", "narrow")
    )

    (difference,) = config.differences(wide, narrow, {"space": "narrow"})

    assert str(difference) == "--space wide (now narrow)"
    assert not difference.can_be_forced


@pytest.mark.acceptance
def test_a_sampler_and_a_pruner_of_ones_own_are_used(program: Program, url: str):
    ran = program(
        *(*ONE, "--study_name", "s", "--n_trials", "3"),
        *(
            "--sampler",
            "tests.support.own_search:Fixed",
            "--pruner",
            "tests.support.own_search:half",
        ),
        *("--range", "lr=1e-3,1e-2,linear"),
    )

    assert ran.returncode == 0, ran.stderr
    trials = load(url, "s")
    assert [trial.params["lr"] for trial in trials[1:]] == pytest.approx([0.00325] * 2)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] + [TrialState.PRUNED] * 2
    assert [trial.last_step for trial in trials] == [4, 2, 2]


@pytest.mark.acceptance
def test_checkpoints_that_are_removed_meanwhile_cost_no_trial(
    program: Program, url: str, held: Held
):
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "3")
    command += ("--workers", "1")
    held.hold(2)
    process = program.start(*command)
    wait_until(held.is_holding)
    shutil.rmtree(program.home / "checkpoints", ignore_errors=True)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANGS_S)
    shutil.rmtree(program.home / "checkpoints", ignore_errors=True)

    resumed = program(*command)

    assert resumed.returncode == 0, resumed.stderr
    assert sum(states(url, "s").values()) == 3
    assert "FAIL" not in states(url, "s")


@pytest.mark.acceptance
def test_a_trial_keeps_the_settings_that_it_began_with(program: Program, url: str, held: Held):
    command = ("--objective", str(held.path), "--study_name", "s", "--workers", "1")
    held.hold(2)
    process = program.start(*command, "--n_trials", "2", "--epochs_per_trial", "6")
    wait_until(held.is_holding)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANGS_S)

    forced = program(
        *(*command, "--n_trials", "3", "--epochs_per_trial", "2", "--force"),
        *("--set", "lr=0.001", "--pruner", "none"),
    )

    assert forced.returncode == 0, forced.stderr
    trials = load(url, "s")
    assert [trial.params["lr"] == 0.001 for trial in trials] == [False, False, True]
    assert ["forced" in trial.user_attrs for trial in trials] == [False, False, True]
    assert trials[2].last_step == 2
    assert trials[1].last_step == 6 or trials[1].state == TrialState.PRUNED


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


@pytest.mark.acceptance
def test_a_host_whose_clock_is_two_hours_ahead_takes_no_trial_from_another(
    program: Program, url: str, tmp_path: Path, held: Held
):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to shift a process's clock with")
    source, shim = tmp_path / "shift.c", tmp_path / "shift.so"
    source.write_text(SHIFT)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "6")
    command += ("--workers", "1", "--log_json")
    ahead = Program(url, tmp_path / "ahead")
    ahead.environment["LD_PRELOAD"] = str(shim)

    # Until each host has begun a trial.
    held.hold(2, 3)
    both = [program.start(*command), ahead.start(*command)]
    wait_until(lambda: held.built >= 3)
    held.let_go()
    outputs = [process.communicate(timeout=HANGS_S) for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    trials = load(url, "s")
    here, there = (datetime.fromisoformat(json.loads(e.split("\n")[0])["at"]) for _, e in outputs)
    assert (there - here).total_seconds() > 7000
    # Times are the database's, whichever host a trial ran on.
    starts = sorted(trial.datetime_start for trial in trials)
    assert (starts[-1] - starts[0]).total_seconds() < 3600
    assert all(0 < trial.duration.total_seconds() < 3600 for trial in trials)
    for host in (program, ahead):
        assert "| trial " in next((host.home / "logs").rglob("*.log")).read_text()
    assert len(trials) == 6
    assert "FAIL" not in states(url, "s")
    assert all("another takes over" not in output[1] for output in outputs)


def test_a_number_among_choices_is_the_same_however_it_is_written():
    weights = Choice(choices=(0.0, 0.1, 3), default=0.1)
    words = Choice(choices=(True, "0", 7), default="0")

    assert [value_of("w", weights, text) for text in ("0", "1e-1", "3.0")] == [0.0, 0.1, 3]
    assert [value_of("w", words, text) for text in ("0", "True", "7.0")] == ["0", True, 7]
    with pytest.raises(ConfigurationError, match="one of True, 0, 7"):
        value_of("w", words, "1")
