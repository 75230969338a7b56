"""The roster: the workers of a study as other processes read them, with the trials they hold.

Border: reads alone; `crew` writes the rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hpo.database.patience import with_retries
from hpo.database.schema import LEASE_S, hosts, identities, leases, tickets, workers
from hpo.machine.version import Version
from hpo.tickets.leases import is_dead


@dataclass(frozen=True, kw_only=True)
class Manned:
    """A worker of the crew, and the trial that it holds.

    Attributes:
        study: Name of its study.
        up_s: Time since its start, in s.
        silent_s: Time since it was last seen, in s.
        is_drained: True if it leaves after its trial.
        trial: Number of its trial; None for an idle worker, and while it asks for parameters.
        is_idle: True if it holds no ticket.
    """

    study: str
    study_uid: str
    worker: str
    host: str
    slot: str
    process: str
    launcher: str
    gpu: str | None
    log: str | None
    version: Version
    started_at: datetime
    up_s: float
    silent_s: float
    is_drained: bool
    is_idle: bool
    trial: int | None
    held_s: float | None
    epoch: int | None
    epochs: int | None
    step: int | None
    steps: int | None
    value: float | None
    phase: str | None

    @property
    def is_silent(self) -> bool:
        """True if it was not seen for the time of a lease."""
        return self.silent_s > LEASE_S

    def flat(self) -> dict[str, Any]:
        """The worker as plain data for JSON."""
        return {**asdict(self), "started_at": self.started_at.isoformat(timespec="seconds")}


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host of a study's workers, with the facts that the last one to start there has read."""

    host: str
    facts: Mapping[str, Any]
    at: datetime


def hosts_of(engine: sa.Engine, study_uid: str, *, days: int) -> list[Host]:
    """The hosts on which a worker of a study has started in the last days, or works."""
    age = sa.func.make_interval(0, 0, 0, days)
    is_working = sa.exists(
        sa.select(workers.c.slot).where(
            workers.c.study_uid == hosts.c.study_uid, workers.c.host == hosts.c.host
        )
    )
    statement = (
        sa.select(hosts.c.host, hosts.c.facts, hosts.c.at)
        .where(hosts.c.study_uid == study_uid, (hosts.c.at > sa.func.now() - age) | is_working)
        .order_by(hosts.c.host)
    )

    def once() -> list[Host]:
        with engine.connect() as connection:
            return [Host(**row) for row in connection.execute(statement).mappings()]

    return with_retries(once)


def manned(engine: sa.Engine, study_uid: str | None = None) -> list[Manned]:
    """The workers of a study, or of all of a database, that are not known to be dead.

    Those that hold trials come first, by study and name.
    """
    columns = ("study_uid", "worker", "host", "slot", "process", "launcher", "gpu", "log")
    seen_at = sa.func.greatest(workers.c.seen_at, leases.c.beat_at)
    on = [workers.c[name] == leases.c[name] for name in ("study_uid", "process", "slot")]
    statement = (
        sa.select(
            *(workers.c[name] for name in (*columns, "version", "started_at", "is_drained")),
            *(leases.c[name] for name in ("epoch", "epochs", "step", "steps", "value", "phase")),
            tickets.c.trial_number.label("trial"),
            leases.c.run_uid.is_(None).label("is_idle"),
            sa.func.coalesce(identities.c.name, "-").label("study"),
            _age_s(workers.c.started_at).label("up_s"),
            _age_s(seen_at).label("silent_s"),
            _age_s(leases.c.taken_at).label("held_s"),
        )
        .select_from(workers)
        .outerjoin(leases, sa.and_(*on))
        .outerjoin(
            tickets,
            (tickets.c.study_uid == leases.c.study_uid) & (tickets.c.ticket == leases.c.ticket),
        )
        .outerjoin(identities, identities.c.study_uid == workers.c.study_uid)
        .where(workers.c.left_at.is_(None))
        .order_by("study", leases.c.run_uid.is_(None), workers.c.worker)
    )
    if study_uid is not None:
        statement = statement.where(workers.c.study_uid == study_uid)

    def once() -> list[Manned]:
        with engine.connect() as connection:
            return [Manned(**row) for row in connection.execute(statement).mappings()]

    return [one for one in with_retries(once) if not is_dead(one.process)]


def clock_s(engine: sa.Engine) -> float:
    """The time by which this host's clock is ahead of the database's, in s."""
    theirs = sa.select(sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float))

    def once() -> float:
        with engine.connect() as connection:
            # The first statement of a transaction takes a round trip more.
            connection.scalar(sa.select(1))
            began = time.time()
            found = float(connection.scalar(theirs) or 0.0)
            return (began + time.time()) / 2 - found

    return with_retries(once)


def _age_s(at: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", sa.func.now() - at), sa.Float)
