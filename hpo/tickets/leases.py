"""Readers of leases: the workers, their tickets, and the death of a process on this host.

Border: reads alone; `budget` takes leases, renews them and gives them back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hpo.database.faults import is_outage
from hpo.database.notices import Notices
from hpo.database.patience import with_retries
from hpo.database.schema import LEASE_S, leases, tickets
from hpo.database.spending import OVER
from hpo.tickets.touch import KNOWN, TOUCHED, Keys


def host_name() -> str:
    """This host's name in its leases."""
    return socket.gethostname()


def process_id(pid: int | None = None) -> str:
    """Identifier of a process, distinct from a later one with the same pid; empty if none runs.

    On Linux it is `boot id/pid namespace:pid:start time`, so that a process is never judged from
    another host or container. The start time is left out if it cannot be read (no /proc, or
    another user's process under hidepid).
    """
    pid = os.getpid() if pid is None else pid
    try:
        # The second field is the program's name in parentheses and may itself hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{_machine()}:{pid}:" if _exists(pid) else ""
    # A zombie has ended, though its parent has not waited for it yet.
    return "" if fields[0] in "ZX" else f"{_machine()}:{pid}:{fields[19]}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def _machine() -> str:
    """Scope in which a pid is unique: boot id and pid namespace, else the host's name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink().name  # pid:[4026531836]
        return f"{boot}/{namespace[5:-1]}"
    except OSError:
        return host_name()


def is_dead(process: str) -> bool:
    """Return whether a process has certainly ended: it ran here and is no longer found."""
    machine, pid, _ = process.split(":")
    if machine != _machine():
        return False
    found = process_id(int(pid))
    return found != process and not found.endswith(":")


def is_of(process: str, pid: int) -> bool:
    """Return whether an identifier is of this machine's process with a number, dead or alive."""
    return process.startswith(f"{_machine()}:{pid}:")


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A leased ticket, its worker and its progress, as other processes read them.

    Attributes:
        phase: The part of the training that ran at the last beat; None between parts.
        phase_s: The time for which it had been running, in s.
    """

    ticket: int
    trial_number: int | None
    worker: str
    host: str
    process: str
    slot: str
    silent_s: float
    held_s: float
    epoch: int | None
    epochs: int | None
    step: int | None
    steps: int | None
    value: float | None
    phase: str | None = None
    phase_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The prospects of a worker without a ticket.

    Attributes:
        is_open: True if a ticket is open.
        is_leased: True if others hold tickets, which they may give back.
        is_silent: True if a lease has had no beat for `LEASE_S`.
        processes: The processes of this machine that hold leases.
        expires_s: Time until the next lease is over unless its worker beats; None without leases.
        is_over: True if the study's budget is spent, so that no ticket can be taken.
        is_paused: True if tickets are open, and none is given out.
        is_drained: True if the worker that looks is to leave.
        is_known: True if that worker has a row in the crew.
    """

    is_open: bool
    is_leased: bool
    is_silent: bool
    processes: Sequence[str]
    expires_s: float | None = None
    is_over: bool = False
    is_paused: bool = False
    is_drained: bool = False
    is_known: bool = True

    @property
    def is_spent(self) -> bool:
        """True if all tickets have ended."""
        return not (self.is_open or self.is_leased or self.is_paused)

    def has_lost(self) -> bool:
        """Return whether a lease is to be given back: its process is dead, or was silent."""
        return self.is_silent or any(map(is_dead, self.processes))


# One statement, so that a ticket on its way from one state to the next is seen in one of them.
_OUTLOOK = f"""
{{first}}SELECT open AND NOT paused AS is_open, open AND paused AS is_paused, {OVER} AS is_over,
count(run_uid) > 0 AS is_leased,
coalesce(bool_or(beat_at < now() - make_interval(secs => :lease_s)), false) AS is_silent,
CAST(extract(epoch FROM min(beat_at) - now()) + :lease_s AS float8) AS expires_s,
coalesce(array_agg(process) FILTER (WHERE starts_with(process, :machine)), '{{{{}}}}') AS processes
{{also}}
FROM (SELECT EXISTS (SELECT FROM hpo.tickets WHERE study_uid = :study_uid AND state = 'open')
    AS open, EXISTS (SELECT FROM hpo.controls WHERE study_uid = :study_uid
    AND paused_at IS NOT NULL) AS paused) AS study
LEFT JOIN hpo.leases ON study_uid = :study_uid GROUP BY open, paused
"""


def outlook(
    engine: sa.Engine,
    study_uid: str,
    notices: Notices | None = None,
    worker: Keys | None = None,
) -> Outlook:
    """The prospects of a study's workers, read in one round trip.

    Args:
        notices: Read on the connection that listens, if one does: no other is needed then.
        worker: The key of the row of the worker that looks, which is touched now and then.
    """
    values = {"study_uid": study_uid, "lease_s": LEASE_S, "machine": f"{_machine()}:"}
    own = ("", "") if worker is None else (f"WITH {TOUCHED}", KNOWN)
    statement = sa.text(_OUTLOOK.format(first=own[0], also=own[1]))
    values = {**values, **(worker or {})}

    def read(connection: sa.Connection) -> Outlook:
        return Outlook(**connection.execute(statement, values).mappings().one())

    if notices is not None and notices.connection is not None:
        try:
            return read(notices.connection)
        except SQLAlchemyError as error:
            notices.close()
            if not is_outage(error):
                raise
    # A transaction of its own would take two round trips more.
    direct = engine.execution_options(isolation_level="AUTOCOMMIT")

    def once() -> Outlook:
        with direct.connect() as connection:
            return read(connection)

    return with_retries(once)


def live_leases(engine: sa.Engine) -> list[Lease]:
    """The leases with a recent beat and a living process, of all studies of a database."""
    fresh = leases.c.beat_at > sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, LEASE_S)
    return [lease for lease in read_leases(engine, fresh) if not is_dead(lease.process)]


def read_leases(engine: sa.Engine, which: sa.ColumnElement[bool]) -> list[Lease]:
    """The leases that satisfy a condition, longest held first."""
    silent_s = sa.extract("epoch", sa.func.now() - leases.c.beat_at)
    held_s = sa.extract("epoch", sa.func.now() - leases.c.taken_at)
    names = ("ticket", "worker", "host", "process", "slot", "epoch", "epochs", "value", "phase")
    statement = (
        sa.select(
            *(leases.c[name] for name in (*names, "step", "steps", "phase_s")),
            tickets.c.trial_number,
            sa.cast(silent_s, sa.Float).label("silent_s"),
            sa.cast(held_s, sa.Float).label("held_s"),
        )
        .join_from(leases, tickets)
        .where(which)
        .order_by(leases.c.taken_at)
    )

    def once() -> list[Lease]:
        with engine.connect() as connection:
            return [Lease(**row) for row in connection.execute(statement).mappings()]

    return with_retries(once)
