"""Tickets of a study: an exact number of trials, each held under a lease.

A study's budget is rows: N tickets are N trials. A worker takes the lowest open ticket in one
statement. It holds a lease on it, which it renews with beats by the database's clock. A ticket is
given back if its lease is released, has had no beat for `LEASE_S`, or belongs to a process known to
be dead. The next worker then resumes the same Optuna trial. Border: nothing here knows what a
trial computes or how Optuna stores it. `ticket` writes in the transactions of its trial, `leases`
reads leases.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from hpo.database.connection import held
from hpo.database.notices import Notices
from hpo.database.patience import since_outage_s, with_retries
from hpo.database.schema import LEASE_S, leases, tickets
from hpo.database.spending import OVER
from hpo.database.trial_writer import autocommit
from hpo.tickets.counting import Budget, Counted, budgets
from hpo.tickets.leases import (
    Lease,
    Outlook,
    host_name,
    is_dead,
    outlook,
    process_id,
    read_leases,
)
from hpo.tickets.losses import give_back
from hpo.tickets.orders import IS_PAUSED, ORDERS
from hpo.tickets.queue import Queue
from hpo.tickets.spent import Spent, limit, spent
from hpo.tickets.ticket import Ticket
from hpo.tickets.touch import Keys, touching

__all__ = ["BEAT_S", "Budget", "Tickets", "budgets"]

T = TypeVar("T")

BEAT_S = 5.0
# After an outage a living worker has this long to beat again before its silence counts.
_RETURN_S = 2 * BEAT_S

# A server that has just started was away, and its workers could not beat.
_SILENT = """beat_at < now() - make_interval(secs => :lease_s)
    AND pg_postmaster_start_time() < now() - make_interval(secs => :return_s)"""

# This is one statement, so that two workers never get the same ticket: choosing a row locks it, and
# other workers skip locked rows. While a study is paused, and to a worker that is to leave, none is
# given out.
_TAKE = sa.text(f"""
WITH chosen AS (
    SELECT study_uid, ticket FROM hpo.tickets
    WHERE study_uid = :study_uid AND state = 'open' AND NOT {OVER} AND NOT {IS_PAUSED}
        AND NOT EXISTS (SELECT FROM hpo.workers WHERE study_uid = :study_uid
        AND process = :process AND slot = :slot AND is_drained)
    ORDER BY ticket LIMIT 1 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE hpo.tickets t SET state = 'leased', attempt = t.attempt + 1
    FROM chosen c WHERE t.study_uid = c.study_uid AND t.ticket = c.ticket
    RETURNING t.*
), leased AS (
    INSERT INTO hpo.leases (run_uid, study_uid, ticket, attempt, worker, host, process, slot,
        gpus)
    SELECT :run_uid, study_uid, ticket, attempt, :worker, :host, :process, :slot, :gpus FROM taken
)
SELECT ticket, attempt, losses, silences, saved_step, cause, trial_number, rerun_of, params,
    cancelled
FROM taken
""")


@dataclass(frozen=True)
class Renewed(Generic[T]):
    """A lease that was renewed, and what its owner is to know.

    Attributes:
        state: The value that the owner asked for.
        cancelled: The number of the trial that an operator has cancelled; None for none.
        is_drained: True if the worker is to leave after its trial.
        gives_back: True if the study is paused, and its trials are to be given back.
    """

    state: T | None
    cancelled: int | None = None
    is_drained: bool = False
    gives_back: bool = False


class Tickets:
    """The tickets of one study.

    Attributes:
        queue: The configurations that are tried next.
    """

    def __init__(self, engine: sa.Engine, study_uid: str) -> None:
        self._engine = engine
        self._study_uid = study_uid
        self._counted = Counted(engine, study_uid)
        self.queue = Queue(engine, study_uid)

    def grow(self, total: int) -> int:
        """Bring the study's total to `max(existing, total)` and return it."""
        statement = sa.text("""
            INSERT INTO hpo.tickets (study_uid, ticket)
            SELECT :study_uid, n FROM generate_series(1, :total) n
            ON CONFLICT DO NOTHING
        """)
        self._write(statement, study_uid=self._study_uid, total=total)
        return self.count().total

    @contextmanager
    def held_still(self) -> Iterator[list[Lease]]:
        """Prevent the taking of tickets; yield the leases of workers."""
        self.sweep()
        statement = sa.select(tickets.c.ticket).where(tickets.c.study_uid == self._study_uid)
        with held(self._engine, lambda c: c.execute(statement.with_for_update()).close()):
            yield self.live()

    def take(
        self, *, worker: str, slot: str, process: str | None = None, gpus: float = 0.0
    ) -> Ticket | None:
        """Lease the lowest open ticket; None if there is none, or the study's budget is spent.

        Args:
            process: The process whose end is the lease's; None for this one.
            gpus: GPUs of the slot, which count for the study's budget; a share of a shared one.
        """
        values = {
            "study_uid": self._study_uid,
            "worker": worker,
            "slot": slot,
            "host": host_name(),
            "process": process or process_id(),
            "gpus": gpus,
        }

        def once() -> Ticket | None:
            # Each try has its own uid: a lease whose answer was lost gets no beat and is swept.
            run_uid = str(uuid.uuid4())
            with autocommit(self._engine) as connection:
                found = connection.execute(_TAKE, {**values, "run_uid": run_uid})
                row = found.mappings().one_or_none()
            if row is None:
                return None
            return Ticket(study_uid=self._study_uid, run_uid=run_uid, **row)

        return with_retries(once)

    def beat(
        self,
        run_uid: str,
        progress: Mapping[str, float | int | None],
        state: sa.Select[tuple[T]] | None = None,
    ) -> Renewed[T] | None:
        """Renew a lease and store its progress; return None if it is no longer ours.

        Args:
            state: A statement whose value is returned, read by the same statement.
        """
        read = sa.null() if state is None else state.scalar_subquery()
        statement = (
            leases.update()
            .where(leases.c.run_uid == run_uid)
            .values(beat_at=sa.func.now(), **progress)
            .returning(read.label("state"), *ORDERS)
            .add_cte(touching(run_uid))
        )
        # A lost beat is not retried, because the next one follows within `BEAT_S`.
        with autocommit(self._engine) as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else Renewed(**row._mapping)

    def release(self, run_uid: str) -> None:
        """Give back a ticket for another worker to resume; count no loss."""
        give_back(self._engine, "run_uid = :run_uid", run_uid=run_uid)

    def lose(self, run_uid: str, *, cause: str) -> None:
        """Give back a ticket whose trial stopped its worker; count the loss."""
        give_back(self._engine, "run_uid = :run_uid", count="losses", cause=cause, run_uid=run_uid)

    def sweep(self, *, is_loss: bool = True) -> Sequence[int]:
        """Give back the tickets of leases without beats and of this host's dead processes.

        Neither says anything against a trial, so they are counted as silence.

        Args:
            is_loss: False if the caller killed the processes itself.
        """
        found = self.outlook()
        dead = [process for process in found.processes if is_dead(process)]
        if not (dead or found.is_silent):
            return []
        which = (
            "study_uid = :study_uid AND (process = ANY(:dead) OR :is_silent AND " + _SILENT + ")"
        )
        return give_back(
            self._engine,
            which,
            count="silences" if is_loss else None,
            is_sweep=True,
            cause="its worker was killed, or fell silent" if is_loss else None,
            study_uid=self._study_uid,
            dead=dead,
            lease_s=LEASE_S,
            return_s=_RETURN_S,
            # A sweep that waits out an outage itself must not take the leases of the living.
            is_silent=lambda: since_outage_s() > _RETURN_S,
        )

    def _write(self, statement: sa.TextClause, **values: object) -> Sequence[sa.Row[Any]]:
        """Execute one statement in a transaction of its own; return its rows."""

        def once() -> Sequence[sa.Row[Any]]:
            with self._engine.begin() as connection:
                result = connection.execute(statement, values)
                return result.all() if result.returns_rows else []

        return with_retries(once)

    def count(self) -> Budget:
        """The number of tickets in each state."""
        return with_retries(self._counted.read)

    def spent(self) -> Spent:
        """What the study has spent, and may spend."""
        return spent(self._engine, self._study_uid)

    def limit(self, *, max_hours: float | None, max_gpu_hours: float | None) -> None:
        """Limit what the study may spend; None leaves a limit as it is, infinity removes it."""
        given = {"max_hours": max_hours, "max_gpu_hours": max_gpu_hours}
        limit(self._engine, self._study_uid, given)

    def outlook(self, notices: Notices | None = None, worker: Keys | None = None) -> Outlook:
        """The prospects of a worker without a ticket, read where it listens, if it does.

        Args:
            worker: The key of its row, which is touched now and then.
        """
        return outlook(self._engine, self._study_uid, notices, worker)

    def notices(self) -> Notices:
        """The notices of this study's tickets: one is open, or the last ones have ended."""
        return Notices(self._engine, self._study_uid)

    def live(self) -> list[Lease]:
        """The leases of this study, longest held first."""
        return read_leases(self._engine, leases.c.study_uid == self._study_uid)
