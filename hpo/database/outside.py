"""Trials as other Optuna programs leave them: ended, deleted, enqueued; and their numbers.

Border: reads and changes Optuna's table of trials within the transactions of `storage`; knows
neither tickets nor leases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from optuna.storages._rdb import models as tables
from optuna.trial import TrialState
from sqlalchemy import orm

from hpo.database.buffer import set_attributes
from hpo.errors import TrialEnded, TrialGone

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


def check_open(session: orm.Session, trial_id: int) -> None:
    """Lock a trial, so that no other program ends it before the commit.

    Raises:
        TrialEnded: Another program has ended it.
        TrialGone: Another program has deleted it.
    """
    found = _locked(session, sa.select(*_COLUMNS).where(_trials.c.trial_id == trial_id))
    opened(found, "the trial")


def opened(found: Found | None, name: str) -> Found:
    """A trial's row, if the trial has not ended.

    Raises:
        TrialEnded: Another program has ended it.
        TrialGone: There is none, because another program has deleted it.
    """
    if found is None:
        raise TrialGone(f"{name} was deleted by another program; the ticket gets another one")
    if found.state.is_finished():
        state = found.state.name.lower()
        raise TrialEnded(f"trial {found.number} was ended by another program ({state})")
    return found


def begin_waiting(
    session: orm.Session, study_id: int, *, user: Mapping[str, Any], system: Mapping[str, Any]
) -> Found | None:
    """Begin the first trial that another program enqueued; None if none is waiting.

    Args:
        user: User attributes to set.
        system: System attributes to set.
    """
    statement = sa.select(*_COLUMNS).where(*_waiting(study_id)).order_by(_trials.c.number).limit(1)
    row = session.execute(statement.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    found = Found(*row)
    same = (_trials.c.study_id == study_id) & (_trials.c.number == found.number)
    number = found.number
    if (session.scalar(sa.select(sa.func.count()).where(same)) or 0) > 1:
        number = free_number(session, study_id, found.trial_id, at_least=0)
    values = {"state": TrialState.RUNNING, "datetime_start": NOW, "number": number}
    session.execute(_trials.update().where(_trials.c.trial_id == found.trial_id).values(values))
    set_attributes(session, found.trial_id, user=user, system=system)
    return found._replace(number=number)


def free_number(session: orm.Session, study_id: int, trial_id: int, *, at_least: int) -> int:
    """A number for a trial, above those of the study's other trials.

    Optuna takes the number of earlier trials, which repeats a number after a deletion.
    """
    others = (_trials.c.study_id == study_id) & (_trials.c.trial_id != trial_id)
    highest = session.scalar(sa.select(sa.func.max(_trials.c.number)).where(others))
    return at_least if highest is None else max(at_least, highest + 1)


def note_ended(session: orm.Session, found: Found) -> None:
    """Note on a trial that another program ended it, at this time of the database."""
    reason = OUTSIDE if found.state == TrialState.PRUNED else "-"
    user = {"prune_reason": reason, "prune_detail": ENDED_OUTSIDE}
    set_attributes(session, found.trial_id, user=user, system={})
    ended = _trials.update().where(_trials.c.trial_id == found.trial_id)
    session.execute(ended.values(datetime_complete=NOW))


def _waiting(study_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (_trials.c.study_id == study_id, _trials.c.state == TrialState.WAITING)


def _locked(session: orm.Session, statement: sa.Select[Any]) -> Found | None:
    row = session.execute(statement.with_for_update(key_share=True)).one_or_none()
    return None if row is None else Found(*row)
