"""Trials as other Optuna programs leave them: ended, deleted, enqueued.

Border: reads and changes Optuna's table of trials within the transactions of `storage`; knows
neither tickets nor leases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from optuna.storages._rdb import models as tables
from optuna.trial import TrialState
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

# The `prune_reason` of a trial that another program pruned, and the `prune_detail` of every trial
# that another program ended.
OUTSIDE = "outside"
ENDED_OUTSIDE = "ended from outside"
# This system attribute holds a trial's number. A copy that Optuna makes after a deletion has later
# trials under other numbers, with the attributes of before.
NUMBER = "hpo:number"
# The hosts' clocks may differ, so times are the database's. Optuna stores naive UTC.
NOW = sa.func.timezone("UTC", sa.func.now())

_trials = tables.TrialModel.__table__
_COLUMNS = (_trials.c.trial_id, _trials.c.number, _trials.c.state)


class Found(NamedTuple):
    """A row of a trial."""

    trial_id: int
    number: int
    state: TrialState


def trial_state(trial_id: int) -> sa.Select[tuple[TrialState]]:
    """The statement that reads a trial's state; it finds no row if the trial was deleted."""
    return sa.select(_trials.c.state).where(_trials.c.trial_id == trial_id)


def waiting(study_id: int) -> sa.ScalarSelect[int]:
    """The expression that counts the trials that other programs enqueued and nobody began."""
    return sa.select(sa.func.count()).where(*_waiting(study_id)).scalar_subquery()


def find(session: orm.Session, study_id: int, number: int | None) -> Found | None:
    """The study's trial of this number, locked; None if there is none."""
    # Where another program repeated a number after a deletion, the first trial is the bound one.
    which = (_trials.c.study_id == study_id) & (_trials.c.number == number)
    return _locked(session, sa.select(*_COLUMNS).where(which).order_by(_trials.c.trial_id).limit(1))


def note_ended(session: orm.Session, found: Found) -> None:
    """Note on a trial that another program ended it, at this time of the database."""
    reason = OUTSIDE if found.state == TrialState.PRUNED else "-"
    user = {"prune_reason": reason, "prune_detail": ENDED_OUTSIDE}
    _set_user_attributes(session, found.trial_id, user)
    ended = _trials.update().where(_trials.c.trial_id == found.trial_id)
    session.execute(ended.values(datetime_complete=NOW))


def _set_user_attributes(
    session: orm.Session, trial_id: int, attributes: Mapping[str, Any]
) -> None:
    """Set user attributes of a trial, whatever its state."""
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]
    insert = postgresql.insert(tables.TrialUserAttributeModel.__table__).values(rows)
    changed = {"value_json": insert.excluded.value_json}
    session.execute(insert.on_conflict_do_update(index_elements=["trial_id", "key"], set_=changed))


def _waiting(study_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (_trials.c.study_id == study_id, _trials.c.state == TrialState.WAITING)


def _locked(session: orm.Session, statement: sa.Select[Any]) -> Found | None:
    row = session.execute(statement.with_for_update(key_share=True)).one_or_none()
    return None if row is None else Found(*row)
