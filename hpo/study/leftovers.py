"""Find and remove what studies leave behind that another program deleted.

optuna-dashboard and Optuna delete their own rows alone. Here go our rows of such studies, this
host's files, and artifacts that nothing refers to. Border: predictions of a study that exists are
removed by `hpo.database.retention`; a whole study by `deletion`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hpo.database.schema import (
    LEASE_S,
    artifacts,
    checkpoints,
    divergences,
    identities,
    leases,
    tickets,
)
from hpo.study import deletion, identity
from hpo.study.deletion import Folders
from hpo.study.inheritance import ROWS

# A file is uploaded before its trial refers to it, which a lost connection may delay.
_NEW_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """Numbers of what gone studies left behind, and sizes in bytes.

    Attributes:
        studies: Number of gone studies with rows or files.
        rows: Number of their rows by table.
        artifacts: Number of files in the database that belong to no study that exists.
        files: Number of their checkpoints and logs on this host.
    """

    studies: int
    rows: Mapping[str, int]
    artifacts: int
    artifact_bytes: int
    files: int
    file_bytes: int

    def flat(self) -> dict[str, Any]:
        """All fields as plain data for JSON."""
        return asdict(self)


def clear(engine: sa.Engine, folders: Folders, *, dry_run: bool = False) -> Leftovers:
    """Remove leftovers in one transaction, then the files on this host.

    A gone study that workers still hold is left for later. Of folders, only those are touched
    that have the uid of a study of this database as their name.

    Args:
        dry_run: Count, and remove nothing.

    Raises:
        StorageError: Some files are left over.
    """
    with engine.begin() as connection:
        uids = _gone(connection)
        # The lock keeps workers from taking the tickets until the end.
        connection.execute(sa.select(tickets.c.ticket).where(_of(tickets, uids)).with_for_update())
        counts: dict[sa.Table, dict[str, int]] = {
            table: {row[0]: row[1] for row in connection.execute(_counted(table, uids))}
            for table in ROWS
        }
        sizes = connection.scalars(
            sa.select(sa.func.sum(sa.func.octet_length(artifacts.c.body)))
            .where(_unreferenced(uids))
            .group_by(artifacts.c.artifact_id)
        ).all()
        if not dry_run:
            connection.execute(artifacts.delete().where(_unreferenced(uids)))
            for table in reversed(ROWS):
                connection.execute(table.delete().where(_of(table, uids)))
            for uid in uids:
                identity.remember(connection, uid)
    places = [folder / uid for uid in uids for folder in (folders.checkpoints, folders.logs)]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    found = Leftovers(
        studies=len({uid for by_uid in counts.values() for uid in by_uid} | _owners(files, uids)),
        rows={table.name: sum(by_uid.values()) for table, by_uid in counts.items()},
        artifacts=len(sizes),
        artifact_bytes=sum(sizes),
        files=len(files),
        file_bytes=sum(path.stat().st_size for path in files),
    )
    if not dry_run:
        deletion.remove(places)
    return found


def _gone(connection: sa.Connection) -> Sequence[str]:
    """The uids of our rows that no study has and no worker holds."""
    life = sa.func.make_interval(0, 0, 0, 0, 0, 0, LEASE_S)
    held = sa.select(leases.c.study_uid).where(leases.c.beat_at > sa.func.now() - life)
    tables = (*ROWS, identities)
    known = sa.union(*(sa.select(table.c.study_uid) for table in tables)).subquery()
    uid = known.c.study_uid
    found = sa.select(uid).where(uid.not_in(identity.living()), uid.not_in(held))
    return connection.scalars(found).all()


def _of(table: sa.Table, uids: Sequence[str]) -> sa.ColumnElement[bool]:
    return table.c.study_uid.in_(uids)


def _counted(table: sa.Table, uids: Sequence[str]) -> sa.Select[Any]:
    """The number of rows of each gone study in a table; a checkpoint counts once."""
    uid = table.c.study_uid
    is_counted = table.c.part == 0 if table is checkpoints else sa.true()
    return sa.select(uid, sa.func.count()).where(_of(table, uids), is_counted).group_by(uid)


def _unreferenced(uids: Sequence[str]) -> sa.ColumnElement[bool]:
    """The condition for artifacts of gone studies, and for older ones that nothing refers to."""

    def is_living(table: sa.Table) -> sa.ColumnElement[bool]:
        return ~_of(table, uids) if table is divergences else sa.true()

    gone = sa.select(divergences.c.artifact_id).where(_of(divergences, uids))
    age = sa.func.now() - artifacts.c.at
    # An artifact of before version 5 has no time.
    is_old = sa.func.coalesce(age > sa.func.make_interval(0, 0, 0, 0, 0, 0, _NEW_S), True)
    id_ = artifacts.c.artifact_id
    return id_.not_in(deletion.referred_to(is_living)) & (is_old | id_.in_(gone))


def _owners(files: Collection[Path], uids: Sequence[str]) -> set[str]:
    """The uids whose folders hold some of these files."""
    return {part for path in files for part in path.parts} & set(uids)
