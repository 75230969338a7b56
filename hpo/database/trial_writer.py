"""A worker's writes to its trial: each is one call of a function in the database, under a fence.

Border: calls `functions`, and raises what they refuse. `storage` collects what is written, and
retries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from hpo.database.fence import Fence
from hpo.errors import LeaseLost, TrialEnded, TrialGone

# The statements of an owner's, executed with the rows in the same transaction.
Statements = Sequence[tuple[sa.Executable, Sequence[Mapping[str, Any]]]]

_BEGIN = "SELECT * FROM hpo.begin_trial(%s::uuid, %s::uuid, %s, %s, %s, %s, %s)"
_WRITE = "SELECT hpo.write_trial(%s::uuid, %s, %s, %s)"


class Begun(NamedTuple):
    """A trial that was created, taken from another program's queue, or found again.

    Attributes:
        is_new: Whether it was created, with the given attributes and no others.
        began: The time of its creation, naive UTC; None for one that was found again.
    """

    trial_id: int
    number: int
    is_new: bool
    began: datetime | None


def begin(
    engine: sa.Engine,
    fence: Fence,
    *,
    study_id: int,
    user: Mapping[str, Any] | None,
    system: Mapping[str, Any] | None,
    if_waiting: Mapping[str, Any] | None,
) -> Begun:
    """Create a running trial, or begin an enqueued one, and bind it to its owner.

    Without attributes it only finds the trial that is bound.

    Raises:
        LeaseLost: The owner has lost its lease.
        TrialEnded, TrialGone: The owner's trial of before was ended or deleted.
        KeyError: The study was deleted.
    """
    given = [None if one is None else _texts(one) for one in (user, system, if_waiting)]
    values = (fence.run_uid, fence.study_uid, fence.ticket, study_id, *given)
    with autocommit(engine) as connection:
        refusal, trial_id, number, is_new, began = connection.exec_driver_sql(_BEGIN, values).one()
    if refusal == "deleted":
        raise KeyError("Record does not exist.")
    check(refusal, fence, number)
    return Begun(trial_id, number, is_new, began)


def write(
    engine: sa.Engine,
    fence: Fence,
    trial_id: int,
    *,
    number: int | None,
    content: Mapping[str, Any],
    end: Mapping[str, Any] | None = None,
    statements: Statements = (),
) -> None:
    """Write what is given to a trial, and end it if its end is given: all of it or nothing.

    Args:
        number: The trial's number, for errors.
        content: What `Buffer.content` returns.
        end: What `Fence.ending` returns, with the trial's state and values.

    Raises:
        LeaseLost: The trial has another owner by now.
        TrialEnded: Another program has ended it.
        TrialGone: Another program has deleted it.
    """
    values = (
        *(fence.run_uid, trial_id, json.dumps(content)),
        None if end is None else json.dumps(end),
    )
    if not statements:
        with autocommit(engine) as connection:
            refusal = connection.exec_driver_sql(_WRITE, values).scalar()
        check(refusal, fence, number)
        return
    with engine.begin() as connection:
        refusal = connection.exec_driver_sql(_WRITE, values).scalar()
        check(refusal, fence, number)
        for statement, rows in statements if refusal is None else ():
            connection.execute(statement, rows or None)


@contextmanager
def autocommit(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection on which each statement is a transaction of its own, in one round trip."""
    with engine.connect() as connection:
        # SQLAlchemy's own option sets the isolation level twice, a quarter of a statement's CPU.
        driver: Any = connection.connection.dbapi_connection
        driver.autocommit = True
        try:
            yield connection
        finally:
            if not driver.closed:
                driver.autocommit = False


def check(refusal: str | None, fence: Fence, number: int | None) -> None:
    """Raise what a function refused, if it did."""
    if refusal is None or refusal == "done":
        return
    if refusal == "lost":
        raise LeaseLost(f"ticket {fence.ticket} was given to another worker")
    shown = "of the ticket" if number is None else number
    if refusal == "gone":
        raise TrialGone(
            f"trial {shown} was deleted by another program; the ticket gets another one"
        )
    raise TrialEnded(f"trial {shown} was ended by another program ({refusal.lower()})")


def _texts(attributes: Mapping[str, Any]) -> str:
    return json.dumps({key: json.dumps(value) for key, value in attributes.items()})
