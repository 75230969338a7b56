"""The checkpoint of the best trial stays, and no other one of a trial that ended."""

from __future__ import annotations

import optuna
import pytest

from hpo.database.connection import connect
from tests.support.program import ROOT, Program

pytestmark = pytest.mark.acceptance


def test_the_best_trial_of_an_earlier_version_keeps_its_checkpoint(program: Program, url: str):
    command = (
        *("--objective", str(ROOT / "tests" / "support" / "fragile.py"), "--fault", "none"),
        *("--study_name", "s", "--epochs_per_trial", "1", "--size", "tiny", "--pruner", "none"),
        *("--workers", "1", "--pause_s", "0"),
    )
    first = program(*command, "--n_trials", "1")
    (file,) = program.home.rglob("trial_*.pt")
    # Earlier versions note no attempt, neither in the trial nor in the file's name.
    old = file.rename(file.with_name("trial_00000.pt"))
    with connect(url).begin() as connection:
        connection.exec_driver_sql("UPDATE trial_values SET value = -1")
        connection.exec_driver_sql("DELETE FROM trial_system_attributes WHERE key = 'hpo:attempt'")

    second = program(*command, "--n_trials", "3")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert list(program.home.rglob("trial_*.pt")) == [old]


def test_at_the_end_of_a_run_of_several_workers_only_the_best_checkpoint_is_left(
    program: Program, url: str
):
    # Trials of some milliseconds end at the same moment, before the workers know of one another's.
    flags = ("--objective", "quadratic", "--study_name", "s", "--workers", "2", "--n_trials", "30")

    ran = program(*flags, "--pruner", "none", "--epochs_per_trial", "2")

    assert ran.returncode == 0, ran.stderr
    best = optuna.load_study(study_name="s", storage=url).best_trial
    (file,) = program.home.rglob("trial_*.pt")
    assert file.name == f"trial_{best.number:05d}-1.pt"


def test_of_the_copies_in_the_database_the_best_trials_alone_is_left_and_is_its_last_state(
    program: Program, url: str
):
    flags = ("--objective", "quadratic", "--study_name", "s", "--workers", "2", "--n_trials", "12")

    ran = program(
        *flags, "--pruner", "none", "--epochs_per_trial", "2", "--checkpoint_dir", "database"
    )

    assert ran.returncode == 0, ran.stderr
    best = optuna.load_study(study_name="s", storage=url).best_trial
    (file,) = program.home.rglob("trial_*.pt")
    with connect(url).begin() as connection:
        rows = connection.exec_driver_sql("SELECT trial_number, step, body FROM hpo.checkpoints")
        (number, step, body) = rows.one()
    assert (number, step) == (best.number, 16)
    assert bytes(body) == file.read_bytes()
