"""Copies of checkpoints in the study's own database, from which any host can go on with a trial.

A copy is written in parts, in one transaction, each part by a statement that checks the lease. So
readers find all of it or nothing, and a worker that lost its trial writes nothing. The lease is not
locked meanwhile: its beats and the trial's reports wait for no copy. Border: bytes in, bytes out;
`hpo.worker.depot` decides when, and compares checksums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import sqlalchemy as sa

from hpo.database.connection import lock
from hpo.database.patience import with_retries
from hpo.database.schema import checkpoints, tickets
from hpo.errors import LeaseLost

# A larger one belongs to a folder or to an object store: each copy is written to the server's log
# of changes, too, and to its standbys.
LARGEST_BYTES = 32 << 20
# The copies of a study's running trials. 32 of the largest fit, so that a fleet writes at most this
# much in a minute, 18 MB/s.
BUDGET_BYTES = 1 << 30
# A part is 1 MiB, because a row's value is held in memory several times on its way.
_PART = 1 << 20

_OPEN = ("open", "leased")

# After the trial's end the attempt that completed it may store its last state, the study's best.
_PUT = sa.text("""
INSERT INTO hpo.checkpoints
    (study_uid, trial_number, attempt, part, step, size, sha256, body)
SELECT :uid, :number, :attempt, :part, :step, :size, :sha256, :body
WHERE EXISTS (SELECT FROM hpo.leases WHERE run_uid = :run_uid) OR EXISTS (
    SELECT FROM hpo.tickets WHERE study_uid = :uid AND ticket = :ticket AND attempt = :attempt
    AND trial_number = :number AND state = 'complete'
)
""").bindparams(sa.bindparam("body", type_=sa.LargeBinary))


class Refused(Exception):
    """A checkpoint that a store does not take, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The attempt at a trial that wrote a checkpoint, and the step after which it did."""

    run_uid: str
    ticket: int
    number: int
    attempt: int
    step: int


# The role of a worker may not delete.
_DISCARD = sa.text(
    "SELECT hpo.discard_checkpoints(CAST(:uid AS uuid), CAST(:number AS integer),"
    " CAST(:first AS integer), CAST(:last AS integer))"
)
_LAST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A stored copy of a checkpoint, whole or not.

    Attributes:
        sha256: The checksum of the checkpoint in hexadecimal digits, or how it begins.
        read: Returns the bytes that are stored, in parts.
    """

    attempt: int
    step: int
    sha256: str
    read: Callable[[], Iterator[bytes]]


class StoredCheckpoints:
    """The copies of one study's checkpoints in the table `hpo.checkpoints`.

    Attributes:
        every_s: The least time from one copy of a worker's to the next.
        patience_s: Infinite, as a reader here waits for a database that is away.
    """

    every_s = 60.0
    patience_s = math.inf

    def __init__(
        self, engine: sa.Engine, study_uid: str, *, budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self._engine, self._uid, self._budget = engine, study_uid, budget_bytes

    def __str__(self) -> str:
        return "the database"

    def put(self, file: BinaryIO, origin: Origin, *, size: int, sha256: str) -> None:
        """Store a checkpoint in place of the trial's earlier ones.

        Raises:
            Refused: It is too large, or the study's running trials have used the budget up.
            LeaseLost: The trial has another owner by now.
        """
        if size > LARGEST_BYTES:
            raise Refused(
                f"a checkpoint of {size / 1e6:.0f} MB is larger than the database takes "
                f"({LARGEST_BYTES >> 20} MiB)"
            )
        whole = {
            **{"uid": self._uid, "size": size, "sha256": sha256},
            **{name: value for name, value in vars(origin).items() if name != "step"},
            "step": origin.step,
        }
        with self._engine.begin() as connection:
            # Nothing is sent that will not fit.
            self._crowd_out(connection, origin.number, size, dry_run=True)
            self._discard(connection, origin.number, last=origin.attempt)
            for part, body in enumerate(iter(lambda: file.read(_PART), b"")):
                stored = connection.execute(_PUT, {**whole, "part": part, "body": body})
                if not stored.rowcount:
                    raise LeaseLost(f"ticket {origin.ticket} was given to another worker")
            # Counted by one worker at a time, the copies of many that come together fit, too.
            lock(connection, f"hpo checkpoints {self._uid}")
            self._crowd_out(connection, origin.number, size)

    def _discard(
        self, connection: sa.Connection, number: int, *, first: int = 0, last: int = _LAST
    ) -> None:
        """Delete the copies of some of a trial's attempts."""
        values = {"uid": self._uid, "number": number, "first": first, "last": last}
        connection.execute(_DISCARD, values).close()

    def _crowd_out(
        self, connection: sa.Connection, number: int, size: int, *, dry_run: bool = False
    ) -> None:
        """Delete copies of ended trials, the oldest first, until another one fits.

        Raises:
            Refused: It would not fit without them all; none is deleted.
        """
        table = checkpoints.c
        runs = sa.exists().where(
            tickets.c.study_uid == table.study_uid,
            tickets.c.trial_number == table.trial_number,
            tickets.c.state.in_(_OPEN),
        )
        found = connection.execute(
            sa.select(table.trial_number, table.attempt, table.size, runs.label("runs"))
            .where(table.study_uid == self._uid, table.part == 0, table.trial_number != number)
            .order_by(table.at)
        ).all()
        if sum(row.size for row in found if row.runs) + size > self._budget:
            raise Refused(
                f"the copies of the study's running trials have reached {self._budget >> 20} MiB"
            )
        too_much = sum(row.size for row in found) + size - self._budget
        for row in found:
            if too_much > 0 and not (row.runs or dry_run):
                too_much -= row.size
                attempt = row.attempt
                self._discard(connection, row.trial_number, first=attempt, last=attempt)

    def copies(self, number: int, *, below: int, above: int) -> Sequence[Copy]:
        """The copies of a trial by attempts between two, the latest attempt first."""
        table = checkpoints.c
        statement = (
            sa.select(table.attempt, table.step, table.sha256)
            .where(table.study_uid == self._uid, table.trial_number == number, table.part == 0)
            .where(table.attempt < below, table.attempt > above)
            .order_by(table.attempt.desc())
        )

        def once() -> Sequence[sa.RowMapping]:
            with self._engine.connect() as connection:
                return connection.execute(statement).mappings().all()

        return [
            Copy(**row, read=partial(self._read, number, row["attempt"]))
            for row in with_retries(once)
        ]

    def _read(self, number: int, attempt: int) -> Iterator[bytes]:
        table = checkpoints.c
        statement = (
            sa.select(table.body)
            .where(table.study_uid == self._uid, table.trial_number == number)
            .where(table.attempt == attempt)
            .order_by(table.part)
        )

        def once() -> Sequence[bytes]:
            with self._engine.connect() as connection:
                return connection.scalars(statement).all()

        return iter(with_retries(once))

    def discard(self, number: int) -> None:
        """Delete the copies of a trial."""
        with self._engine.begin() as connection:
            self._discard(connection, number)

    def sweep(self, ended: Container[int], *, keep: tuple[int, int] | None) -> None:
        """Delete the copies of ended trials.

        Args:
            keep: The trial and the attempt whose copy stays.
        """
        table = checkpoints.c
        statement = sa.select(table.trial_number, table.attempt).where(
            table.study_uid == self._uid, table.part == 0
        )
        with self._engine.begin() as connection:
            for number, attempt in connection.execute(statement).all():
                if number in ended and (number, attempt) != keep:
                    self._discard(connection, number, first=attempt, last=attempt)
