"""The crew of a study: a row for each worker from its start to its end, idle or not.

A worker writes its row when it starts. From then on the statements that it executes anyway touch
the row (`touch`). The rows of lost workers go. Border: writes rows of workers, and the version of
code that they share. `roster` reads them, `orders` has what an operator asks of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hpo.database.connection import lock
from hpo.database.patience import with_retries
from hpo.database.schema import LEASE_S, controls, hosts, workers
from hpo.errors import ConfigurationError
from hpo.machine.version import Version, differences
from hpo.tickets.leases import is_dead, is_of
from hpo.tickets.roster import Manned, manned
from hpo.tickets.touch import Keys

# A worker that nobody sees any more may yet leave as it was asked to, and its run is to hear of it.
_KEPT_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Member:
    """A worker as it enters the crew.

    Attributes:
        worker: Its name, as trials show it.
        process: The process whose end is the worker's, as its leases name it.
        launcher: What started it: `local`, another launcher's name, or `none` for a command.
        gpu: Name and UUID of its GPU; None on a CPU.
        log: The file that it logs to; None if somebody else chose it.
        version: The version of its code.
    """

    worker: str
    host: str
    slot: str
    process: str
    launcher: str
    version: Version
    gpu: str | None = None
    log: str | None = None

    @property
    def keys(self) -> Keys:
        """The key of its row, within its study."""
        return {"process": self.process, "slot": self.slot}


# The role of a worker may not delete.
_FORGET = "SELECT hpo.forget_workers(CAST(:study_uid AS uuid), array_agg(process), array_agg(slot))"
_ENDED = f"""
{_FORGET} FROM hpo.workers w
WHERE study_uid = :study_uid AND (process = ANY(:dead) AND NOT is_drained
    OR seen_at < now() - make_interval(secs => {LEASE_S}) AND NOT is_drained
    AND pg_postmaster_start_time() < now() - make_interval(secs => {LEASE_S})
    OR seen_at < now() - make_interval(secs => {_KEPT_S}))
AND NOT EXISTS (SELECT FROM hpo.leases l WHERE l.study_uid = w.study_uid AND l.process = w.process
    AND l.slot = w.slot)
"""
_LEFT = f"""
{_FORGET} FROM hpo.workers
WHERE study_uid = :study_uid AND process = :process AND slot = :slot AND NOT is_drained
"""
_DRAINED = f"""
{_FORGET} FROM hpo.workers WHERE study_uid = :study_uid AND slot = :slot AND is_drained
    AND process = ANY(:over)
"""


class Crew:
    """The workers of one study."""

    def __init__(self, engine: sa.Engine, study_uid: str) -> None:
        self._engine, self._study_uid = engine, study_uid

    def refuse_other(self, version: Version) -> None:
        """Refuse a version that living workers do not have.

        Raises:
            ConfigurationError: They have another one; what differs is named with both values.
        """
        self._refuse(version, [one for one in self.living() if one.version != version])

    def claim(self, version: Version, *, is_mixed: bool) -> None:
        """Make this version the crew's, as a run does before it starts workers.

        Args:
            is_mixed: Allow that living workers have another one, which then stays the crew's.

        Raises:
            ConfigurationError: Living workers have another one.
        """

        def once() -> None:
            with self._engine.begin() as connection:
                lock(connection, self._lock)
                others = [one for one in self.living() if one.version != version]
                if not others:
                    self._set(connection, version)
                elif not is_mixed:
                    self._refuse(version, others)

        with_retries(once)

    def join(self, member: Member, facts: Mapping[str, Any], *, is_mixed: bool) -> None:
        """Write a worker's row.

        The version of a run's worker has to be the one that a run has set. A worker that a command
        started sets it if no other worker lives.

        Args:
            facts: What `doctor --fleet` compares between hosts.
            is_mixed: Allow any version.

        Raises:
            ConfigurationError: The crew has another version.
        """

        def once() -> None:
            with self._engine.begin() as connection:
                lock(connection, self._lock)
                of_crew = connection.scalar(
                    sa.select(controls.c.version).where(controls.c.study_uid == self._study_uid)
                )
                differ = [] if of_crew is None else differences(member.version, of_crew)
                if differ and not is_mixed:
                    others = self._others(member)
                    if others or member.launcher != "none":
                        raise _refusal(differ, others)
                if of_crew is None or (differ and not is_mixed):
                    self._set(connection, member.version)
                self._write(connection, member)
                row = {"study_uid": self._study_uid, "host": member.host, "facts": dict(facts)}
                statement = insert(hosts).values(**row)
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=["study_uid", "host"],
                        set_={"facts": statement.excluded.facts, "at": sa.func.now()},
                    )
                )

        with_retries(once)

    def renew(self, member: Member) -> None:
        """Write the row of a worker again that others took for lost."""

        def once() -> None:
            with self._engine.begin() as connection:
                self._write(connection, member)

        with_retries(once)

    def leave(self, member: Member) -> None:
        """Remove the row of a worker that ends; that of a drained one stays for its run."""
        mine = _row(self._study_uid, member)
        values = {"study_uid": self._study_uid, **member.keys}

        def once() -> None:
            with self._engine.begin() as connection:
                connection.execute(sa.text(_LEFT), values).close()
                connection.execute(workers.update().where(*mine).values(left_at=sa.func.now()))

        with_retries(once)

    def sweep(self) -> None:
        """Remove the rows of workers that are certainly dead, or were not seen for long."""

        def once() -> None:
            found = sa.select(workers.c.process).where(workers.c.study_uid == self._study_uid)
            with self._engine.begin() as connection:
                dead = [one for one in set(connection.scalars(found)) if is_dead(one)]
                values = {"study_uid": self._study_uid, "dead": dead}
                connection.execute(sa.text(_ENDED), values).close()

        with_retries(once)

    def has_drained(self, slot: str, host: str | None, *, pid: int | None, age_s: float) -> bool:
        """Return whether the worker that ended on a slot was asked to leave; forget that.

        Other runs and commands have drained workers on slots of this name, too, now or before.

        Args:
            host: The slot's; None for a slot whose name no other host has.
            pid: The worker's process id on this host; None for a worker elsewhere.
            age_s: Time since the run asked for the worker, in s.
        """
        where = [workers.c.study_uid == self._study_uid, workers.c.slot == slot]
        where += [workers.c.is_drained] + ([] if host is None else [workers.c.host == host])
        if pid is None:
            age = sa.func.make_interval(0, 0, 0, 0, 0, 0, age_s)
            where.append(workers.c.started_at > sa.func.now() - age)

        def once() -> bool:
            with self._engine.begin() as connection:
                found = connection.execute(sa.select(workers).where(*where)).all()
                over = [
                    one.process
                    for one in found
                    if (one.left_at or is_dead(one.process))
                    and (pid is None or is_of(one.process, pid))
                ]
                values = {"study_uid": self._study_uid, "slot": slot, "over": over}
                connection.execute(sa.text(_DRAINED), values).close()
                return bool(over)

        return with_retries(once)

    def living(self) -> list[Manned]:
        """The workers that were seen lately and are not known to be dead."""
        return [one for one in manned(self._engine, self._study_uid) if not one.is_silent]

    @property
    def _lock(self) -> str:
        return f"hpo crew {self._study_uid}"

    def _others(self, member: Member) -> list[Manned]:
        mine = (member.process, member.slot)
        return [one for one in self.living() if (one.process, one.slot) != mine]

    def _refuse(self, version: Version, others: Sequence[Manned]) -> None:
        differing = [one for one in others if differences(version, one.version)]
        if differing:
            raise _refusal(differences(version, differing[0].version), differing)

    def _set(self, connection: sa.Connection, version: Version) -> None:
        statement = insert(controls).values(study_uid=self._study_uid, version=dict(version))
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["study_uid"], set_={"version": statement.excluded.version}
            )
        )

    def _write(self, connection: sa.Connection, member: Member) -> None:
        # A worker whose trials have processes of their own comes once for each of them.
        statement = insert(workers).values(study_uid=self._study_uid, **vars(member))
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["study_uid", "process", "slot"], set_={"seen_at": sa.func.now()}
            )
        )


def _row(study_uid: str, member: Member) -> list[sa.ColumnElement[bool]]:
    keys = {"study_uid": study_uid, **member.keys}
    return [workers.c[name] == value for name, value in keys.items()]


def _refusal(differ: Sequence[str], others: Sequence[Manned]) -> ConfigurationError:
    """The sentence on code that differs from the crew's."""
    names = ", ".join(one.worker for one in others[:4]) or "the run that set it"
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    last = f", last seen {min(one.silent_s for one in others):.0f} s ago" if others else ""
    return ConfigurationError(
        f"the code differs from that of the study's fleet ({names}{more}{last}): "
        f"{'; '.join(differ)}; bring both to one version, or end that fleet first "
        "(--allow_mixed runs both)"
    )
