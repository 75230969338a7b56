"""The trials of a study as a table and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hpo.files import csv_text
from hpo.study.study import OpenStudy


def trial_rows(opened: OpenStudy) -> list[dict[str, Any]]:
    """The trials of a study, one row each, by number, with the column names that Optuna uses.

    Columns: number, state, value, epochs (the last reported), params_*, user_attrs_*, and the
    times of start and end (ISO 8601). A value that a trial lacks is None.
    """
    trials = opened.load().get_trials(deepcopy=False)
    params = dict.fromkeys(name for trial in trials for name in trial.params)
    attributes = dict.fromkeys(name for trial in trials for name in trial.user_attrs)
    return [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "epochs": trial.last_step,
            **{f"params_{name}": trial.params.get(name) for name in params},
            **{f"user_attrs_{name}": trial.user_attrs.get(name) for name in attributes},
            "datetime_start": _iso(trial.datetime_start),
            "datetime_complete": _iso(trial.datetime_complete),
        }
        for trial in trials
    ]


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV; empty without rows."""
    return csv_text(rows[0], (row.values() for row in rows)) if rows else ""
