"""Studies that tests run, and what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import psycopg2
import sqlalchemy as sa

from hpo.database.schema import metrics
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


# An objective of a file, with trials that are held where a test wants to interrupt them.
_HELD = '''
"""One weight, held in some trials."""
import os, signal, time
from pathlib import Path
from objectives.quadratic import Quadratic, QuadraticTask

FOLDER = Path({folder!r})

class HeldTask(QuadraticTask):
    _number = None

    def batch(self, step):
        if self._number is None:
            with (FOLDER / "built").open("a") as file:
                file.write(".")
            self._number = str((FOLDER / "built").stat().st_size)
        {fault}
        if step > 1 and self._number in self._held():
            (FOLDER / "holding").touch()
            # Step by step, as a worker hears of an interruption between steps.
            time.sleep(0.2)
        return super().batch(step)

    def _held(self):
        try:
            return (FOLDER / "held").read_text().split()
        except FileNotFoundError:
            return ()

class Held(Quadratic):
    name = "held"
    def build(self, params, context):
        return HeldTask(params, context)

objective = Held()
'''


def trials(url: str, study: str = STUDY) -> list[optuna.trial.FrozenTrial]:
    """A study's trials."""
    return optuna.load_study(study_name=study, storage=url).get_trials()


def keep_metrics(db: sa.Engine, row: dict[str, Any]) -> None:
    """Store a row of `Records.epoch`, without a trial's fence."""
    columns = {"r": "run_uid", "e": "epoch", "u": "study_uid", "t": "ticket", "s": "step"}
    values = {name: row[letter] for letter, name in columns.items()}
    with db.begin() as connection:
        connection.execute(metrics.insert().values(**values, values=row["v"]))


def keep(db: sa.Engine, kept: tuple[sa.Executable, list[dict[str, Any]]]) -> None:
    """Execute a statement of `Records` with its rows, without a trial's fence."""
    statement, rows = kept
    with db.begin() as connection:
        connection.execute(statement, rows)


def states(url: str, study: str = STUDY) -> dict[str, int]:
    """Count a study's trials by state."""
    names = [trial.state.name for trial in trials(url, study)]
    return {name: names.count(name) for name in set(names)}


def begun(url: str, study: str) -> int:
    """Count a study's trials by a query that is cheap enough for polling."""
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


class Held:
    """An objective with trials that take 0.2 s a step, from the second step on, until let go.

    Its 96 steps leave 19 s in which to interrupt a trial; a signal is sent as soon as `is_holding`
    is true. Trials are counted at their first step, a resumed one again.

    Args:
        fault: What each step does first: a statement.
        head: What its file does when it is loaded, in every process.
    """

    def __init__(self, folder: Path, *, fault: str = "", head: str = "") -> None:
        self.folder = folder / "held"
        self.folder.mkdir()
        self.path = self.folder / "held.py"
        text = _HELD.format(folder=str(self.folder), fault=fault or "pass")
        self.path.write_text(f"{text}\n{head}\n")

    def hold(self, *numbers: int) -> None:
        """Hold the trials that begin as these, from 1 on."""
        (self.folder / "held").write_text(" ".join(map(str, numbers)))
        (self.folder / "holding").unlink(missing_ok=True)

    def let_go(self) -> None:
        """Have all trials go on at full pace."""
        (self.folder / "held").unlink(missing_ok=True)

    def is_holding(self) -> bool:
        """Return whether a trial is being held."""
        return (self.folder / "holding").exists()

    @property
    def built(self) -> int:
        """Count the trials that have begun so far."""
        file = self.folder / "built"
        return file.stat().st_size if file.exists() else 0


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
