"""Studies that tests run, and what they hold."""

from __future__ import annotations

import optuna
import psycopg2

from tests.support.program import ROOT, Program

QUADRATIC = ("--objective", "quadratic", "--epochs_per_trial", "4")
STUDY = "quadratic-wide-tiny"

# An objective of a file: slow enough to be interrupted.
SLOW = '''
"""One weight, slowly."""
import os, signal, time
from pathlib import Path
from objectives.quadratic import Quadratic, QuadraticTask

class SlowTask(QuadraticTask):
    def batch(self, step):
        time.sleep(0.02)
        return super().batch(step)

class Slow(Quadratic):
    name = "slow"
    def build(self, params, context):
        return SlowTask(params, context)

objective = Slow()
'''


def trials(url: str, study: str = STUDY) -> list[optuna.trial.FrozenTrial]:
    """A study's trials."""
    return optuna.load_study(study_name=study, storage=url).get_trials()


def states(url: str, study: str = STUDY) -> dict[str, int]:
    """How many trials a study has in each state."""
    names = [trial.state.name for trial in trials(url, study)]
    return {name: names.count(name) for name in set(names)}


def begun(url: str, study: str) -> int:
    """How many trials a study has, asked cheaply enough to be asked often."""
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT count(*) FROM trials JOIN studies USING (study_id) WHERE study_name = %s",
            [study],
        )
        return cursor.fetchone()[0]
    except psycopg2.errors.UndefinedTable:
        return 0
    finally:
        connection.close()


# What is run once for a session, and cloned for every test that looks at it.
FRAGILE = str(ROOT / "tests" / "support" / "fragile.py")
_FRAGILE = (
    *("--objective", FRAGILE, "--study_name", "s", "--n_trials", "1"),
    *("--epochs_per_trial", "4", "--size", "tiny", "--workers", "1"),
)
FINISHED = {
    # Complete, pruned and diverged trials.
    "quadratic": (*QUADRATIC, "--n_trials", "12", "--workers", "1"),
    "diverged_batch": (*_FRAGILE, "--fault", "batch"),
    "diverged_root": (*_FRAGILE, "--fault", "root"),
    "healthy": (*_FRAGILE, "--fault", "none"),
}


def fill(name: str, program: Program) -> None:
    """Run one of the finished studies."""
    ran = program(*FINISHED[name])
    assert ran.returncode == 0, ran.stderr
