"""The reader of a study's history: what changed since the last look, in one statement.

Border: fills `history.History` from the function `read_trials`; `storage` says when.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database.history import SYSTEM_ATTRIBUTES, USER_ATTRIBUTES, History, Rows
from hpo.database.trial_writer import autocommit

_READ = "SELECT * FROM hpo.read_trials(%s, %s, %s, %s, %s, %s, %s)"
_UNFINISHED = (TrialState.RUNNING.value, TrialState.WAITING.value)


class HistoryReader:
    """The history of one study, kept up to date.

    Attributes:
        history: The trials as they were at the last look.
    """

    def __init__(self, engine: sa.Engine, study_id: int) -> None:
        self._engine, self._study_id = engine, study_id
        self._latest = -1
        self._open: dict[int, int] = {}
        self.history = History()

    def refresh(self, *, running: bool, rungs: bool = False) -> None:
        """Read the trials that were created or ended since the last look.

        Args:
            running: Read the parameters and rungs of all running trials, too.
            rungs: Read their rungs alone.

        Trial ids grow within a study, because its row is locked while a trial is created.
        """
        values = (self._study_id, self._latest, list(self._open.values()), running, rungs)
        attributes = (list(USER_ATTRIBUTES), list(SYSTEM_ATTRIBUTES))
        with autocommit(self._engine) as connection:
            result = connection.exec_driver_sql(_READ, (*values, *attributes))
            found = [row for row in result if row.numbers is not None]
        seen = {
            number: int(trial_id)
            for one in (_parsed(row) for row in found if row.kind == "trial")
            for number, trial_id in zip(one.numbers, one.values, strict=True)
        }
        for number, trial_id in self._open.items():
            if seen.get(number) != trial_id:
                # It was deleted, or has another number by now.
                self.history.forget(number)
        # Parsed one after the other, 20,000 trials take 27 MB at most, and all at once 69.
        self.history.add(map(_parsed, found))
        if seen:
            self._latest = max(self._latest, *seen.values())
        rows = self.history.rows
        self._open = {
            number: trial_id
            for number, trial_id in seen.items()
            if rows["state"][number] in _UNFINISHED
        }


def _parsed(row: sa.Row[Any]) -> Rows:
    """A row of the function `read_trials`, with its lists parsed."""
    numbers = [*map(int, row.numbers.split("|"))]
    return Rows(row.kind, row.name, row.extra, numbers, row.values.split("|"))


def best_number(history: History, *, maximize: bool, but: int | None = None) -> int | None:
    """The number of the best trial among those that a worker measured; None without one.

    Args:
        but: A trial that is left out.
    """
    rows = history.rows
    measured = (
        (rows["state"] == TrialState.COMPLETE.value)
        & rows["has_run"]
        & ~rows["was_told"]
        & (rows["attempt"] != 0)
        & (rows["infeasible"] == 0)
    )
    numbers = np.flatnonzero(measured)
    if but is not None:
        numbers = numbers[numbers != but]
    if not numbers.size:
        return None
    values = rows["value"][numbers]
    return int(numbers[np.argmax(values) if maximize else np.argmin(values)])
