"""The trials of a study as a table and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from optuna.trial import FrozenTrial

from hpo.database import ended
from hpo.database.ended import Snapshot
from hpo.files import csv_text
from hpo.study.study import OpenStudy

T = TypeVar("T")
_Row = Sequence[Any]


def trial_rows(opened: OpenStudy) -> list[dict[str, Any]]:
    """The trials of a study, one row each, by number, with the column names that Optuna uses.

    Columns: number, state, value, epochs (the last reported), params_*, user_attrs_*, and the
    times of start and end (ISO 8601). A value that a trial lacks is None.
    """
    return _read(opened, lambda head, rows: [dict(zip(head, row, strict=True)) for row in rows])


def trials_csv(opened: OpenStudy) -> str:
    """The same as CSV, without all trials in memory; empty without a trial."""
    return _read(opened, lambda head, rows: csv_text(head, rows) if head else "")


def _read(opened: OpenStudy, make: Callable[[_Row, Iterator[_Row]], T]) -> T:
    """Return what `make` makes of the names of columns, none without a trial, and the rows."""

    def work(found: Snapshot) -> T:
        params, attributes = found.names()
        head = [
            *("number", "state", "value", "epochs"),
            *(f"params_{name}" for name in params),
            *(f"user_attrs_{name}" for name in attributes),
            *("datetime_start", "datetime_complete"),
        ]
        rows = (_row(one, params, attributes) for batch in found.batches() for one in batch)
        return make(head if found.has_trials() else (), rows)

    return ended.read(opened.storage.engine, opened.study_id, work)


def _row(trial: FrozenTrial, params: Sequence[str], attributes: Sequence[str]) -> _Row:
    return (
        *(trial.number, trial.state.name.lower(), trial.value, trial.last_step),
        *map(trial._params.get, params),
        *map(trial._user_attrs.get, attributes),
        *(_iso(trial.datetime_start), _iso(trial.datetime_complete)),
    )


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; empty without rows."""
    return csv_text(rows[0], (row.values() for row in rows)) if rows else ""
