"""An operator's orders: drain workers, cancel a trial, pause and resume a study.

An order is a row that a worker finds in the statements that it executes anyway: a beat, the taking
of a ticket, an idle look. A notice wakes those that wait. Border: writes orders; workers obey them.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hpo.database.patience import with_retries
from hpo.database.schema import controls, leases, tickets, workers
from hpo.errors import ConfigurationError
from hpo.tickets.roster import Manned

# A statement that gives out a ticket has this condition, and one that looks for some, too.
IS_PAUSED = """
EXISTS (SELECT FROM hpo.controls WHERE study_uid = :study_uid AND paused_at IS NOT NULL)
"""

# What a beat reads of them, where it renews its lease.
ORDERS = (
    sa.select(tickets.c.cancelled)
    .where(tickets.c.study_uid == leases.c.study_uid, tickets.c.ticket == leases.c.ticket)
    .scalar_subquery()
    .label("cancelled"),
    sa.exists(
        sa.select(workers.c.slot).where(
            workers.c.study_uid == leases.c.study_uid,
            workers.c.process == leases.c.process,
            workers.c.slot == leases.c.slot,
            workers.c.is_drained,
        )
    ).label("is_drained"),
    sa.exists(
        sa.select(controls.c.study_uid).where(
            controls.c.study_uid == leases.c.study_uid,
            controls.c.paused_at.is_not(None),
            controls.c.gives_back,
        )
    ).label("gives_back"),
)


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A pause of a study.

    Attributes:
        by: Who paused it, and where.
        gives_back: True if trials that ran were given back, with checkpoints.
    """

    at: datetime
    by: str
    gives_back: bool

    def sentence(self, study: str) -> str:
        """The pause in words, with the command that ends it."""
        return (
            f"study '{study}' is paused since {self.at:%Y-%m-%d %H:%M:%S %Z} by {self.by}: no "
            f"trial begins before 'python -m hpo resume {study}'"
        )


def paused(engine: sa.Engine, study_uid: str) -> Pause | None:
    """The pause of a study; None if it is not paused."""
    statement = sa.select(
        controls.c.paused_at.label("at"), controls.c.paused_by.label("by"), controls.c.gives_back
    ).where(controls.c.study_uid == study_uid, controls.c.paused_at.is_not(None))

    def once() -> Pause | None:
        with engine.connect() as connection:
            row = connection.execute(statement).mappings().one_or_none()
            return None if row is None else Pause(**row)

    return with_retries(once)


def pause(engine: sa.Engine, study_uid: str, *, gives_back: bool) -> bool:
    """Give out no ticket of a study from now on; return False if it was so already.

    Args:
        gives_back: Have running trials given back, too, with checkpoints.
    """
    values: dict[str, Any] = {"paused_by": _whoever(), "gives_back": gives_back}
    statement = insert(controls).values(study_uid=study_uid, paused_at=sa.func.now(), **values)
    # A pause that lets trials run may become one that does not.
    was_running = controls.c.paused_at.is_(None)
    is_new = sa.or_(was_running, ~controls.c.gives_back) if gives_back else was_running
    changed = statement.on_conflict_do_update(
        index_elements=["study_uid"],
        set_={"paused_at": sa.func.now(), **values},
        where=is_new,
    )
    return _changed(engine, changed, study_uid) > 0


def resume(engine: sa.Engine, study_uid: str) -> bool:
    """End the pause of a study; return False if it has none."""
    statement = controls.update().where(
        controls.c.study_uid == study_uid, controls.c.paused_at.is_not(None)
    )
    ended = statement.values(paused_at=None, paused_by=None, gives_back=False)
    return _changed(engine, ended, study_uid) > 0


def drain(engine: sa.Engine, crew: Sequence[Manned], name: str) -> list[Manned]:
    """Ask workers to leave after their trials; return those of this name or host.

    Args:
        crew: The workers that there are.

    Raises:
        ConfigurationError: None of them has this name, or runs on such a host.
    """
    chosen = [one for one in crew if name in (one.worker, one.host)]
    if not chosen:
        known = sorted({one.worker for one in crew} | {one.host for one in crew})
        raise ConfigurationError(
            f"no worker and no host is called '{name}'; there are {', '.join(known) or 'none'} "
            "(--drain)"
        )
    for uid in {one.study_uid for one in chosen}:
        mine = [one for one in chosen if one.study_uid == uid]
        which = sa.tuple_(workers.c.process, workers.c.slot).in_(
            [(one.process, one.slot) for one in mine]
        )
        asked = workers.update().where(workers.c.study_uid == uid, which).values(is_drained=True)
        _changed(engine, asked, uid)
    return chosen


def cancel(engine: sa.Engine, study_uid: str, trial: int, *, study: str) -> str | None:
    """Ask for the end of a running trial; return the worker that holds it, None if none does.

    Raises:
        ConfigurationError: There is no such trial, or it has ended.
    """
    mine = (tickets.c.study_uid == study_uid, tickets.c.trial_number == trial)
    held = (leases.c.study_uid == tickets.c.study_uid) & (leases.c.ticket == tickets.c.ticket)
    statement = sa.select(tickets.c.state, leases.c.worker).outerjoin_from(tickets, leases, held)

    def once() -> Any:
        with engine.begin() as connection:
            # Whoever ends the trial at the same moment waits, or has ended it before.
            locked = statement.where(*mine).with_for_update(of=tickets)
            found = connection.execute(locked).one_or_none()
            connection.execute(
                tickets.update()
                .where(*mine, tickets.c.state.in_(("open", "leased")))
                .values(cancelled=trial)
            )
            return found

    found = with_retries(once)
    if found is None:
        raise ConfigurationError(
            f"study '{study}' has no trial {trial} of its own; 'python -m hpo workers' lists those "
            "that run (--cancel)"
        )
    if found.state not in ("open", "leased"):
        raise ConfigurationError(
            f"trial {trial} of study '{study}' has ended ({found.state}); only one that has not "
            "can be cancelled (--cancel)"
        )
    worker: str | None = found.worker
    return worker


def state_of(engine: sa.Engine, study_uid: str, trial: int) -> str | None:
    """The state of a trial's ticket; None without one, as while it is repeated."""
    mine = (tickets.c.study_uid == study_uid, tickets.c.trial_number == trial)

    def once() -> str | None:
        with engine.connect() as connection:
            return connection.scalar(sa.select(tickets.c.state).where(*mine))

    return with_retries(once)


def _changed(engine: sa.Engine, statement: sa.Executable, study_uid: str) -> int:
    """Execute an order and notify those that wait; return the number of rows."""
    notice = sa.select(sa.func.pg_notify(f"hpo {study_uid}", "order"))

    def once() -> int:
        with engine.begin() as connection:
            found = connection.execute(statement)
            connection.execute(notice)
            return int(found.rowcount)

    return with_retries(once)


def _whoever() -> str:
    """The user and the host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user without a name.
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
