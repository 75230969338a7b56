"""Find, count and delete all rows and files of a study.

Tables and columns are taken from Optuna's and our definitions, so that a new one is included
without a change here.
Border: rows and files; no prompts, no output.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.exc import DBAPIError

from hpo.database.migrations import create_tables
from hpo.database.schema import (
    LEASE_S,
    OWN,
    artifacts,
    checkpoints,
    divergences,
    identities,
    tickets,
)
from hpo.errors import ConfigurationError, StorageError
from hpo.study import identity
from hpo.study.config import check_name
from hpo.study.identity import ATTRIBUTES, STUDIES, TRIALS, UID
from hpo.study.study import uid_of
from hpo.tickets.budget import Tickets
from hpo.tickets.leases import Lease, is_dead

_OPTUNA = [table for table in models.BaseModel.metadata.sorted_tables if table.foreign_keys]
_OWN = [table for table in OWN.sorted_tables if "study_uid" in table.c]
# These are all tables with rows of a study. A table that refers to another comes after it.
TABLES: tuple[sa.Table, ...] = (STUDIES, *_OPTUNA, *_OWN, artifacts)

# Optuna's key of a system attribute that refers to an artifact is this and the artifact's id.
_ARTIFACT = "artifacts:"


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Identification of a study's rows.

    Attributes:
        uid: Key of its rows in our own tables; None without one, or if another study's is the same
            and the rows are that one's.
        is_gone: Whether another program has deleted the study, and our rows are left.
    """

    name: str
    study_id: int
    uid: str | None
    is_gone: bool = False

    def rows(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """The condition that selects its rows in a table."""
        if table is artifacts:
            return table.c.artifact_id.in_(referred_to(self.rows))
        if "study_uid" in table.c:
            return table.c.study_uid == self.uid
        if "study_id" in table.c:
            return table.c.study_id == self.study_id
        of_study = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == self.study_id)
        return table.c.trial_id.in_(of_study)

    def rows_to_delete(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """The same condition, without artifacts that another study refers to, too."""
        if table is artifacts:
            by_others = referred_to(lambda table: self.rows(table).is_not(True))
            return self.rows(table) & table.c.artifact_id.not_in(by_others)
        if table is identities:
            return sa.false()
        return self.rows(table)


def referred_to(
    which: Callable[[sa.Table], sa.ColumnElement[bool]],
) -> sa.CompoundSelect[Any]:
    """The ids of artifacts to which some rows of studies, trials and divergences refer.

    Args:
        which: The condition that selects those rows in a table.
    """
    named = [
        sa.select(sa.func.substr(table.c.key, len(_ARTIFACT) + 1)).where(
            table.c.key.startswith(_ARTIFACT), which(table)
        )
        for table in _OPTUNA
        if table.name.endswith("_system_attributes")
    ]
    recorded = sa.select(divergences.c.artifact_id).where(
        divergences.c.artifact_id.is_not(None), which(divergences)
    )
    return sa.union(*named, recorded)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """This host's folders for files of studies, with one subfolder per study, named by its uid."""

    checkpoints: Path
    logs: Path


@dataclass(frozen=True, kw_only=True)
class Content:
    """Rows and files that a deletion would remove.

    Attributes:
        rows: Number of rows by table.
        artifacts: Size of each artifact in the database, in bytes.
        stored: Size of each checkpoint in the database, in bytes.
    """

    rows: Mapping[str, int]
    artifacts: Sequence[int]
    stored: Sequence[int]
    checkpoints: Sequence[Path]
    logs: Sequence[Path]


def find(engine: sa.Engine, name: str | None) -> Whole:
    """Find the study of this name, or the only one, also if another program created it.

    Of a study that another program deleted, our rows are found by its name.

    Raises:
        ConfigurationError: There is none, or there are several and no name is given.
    """
    check_name(name)
    create_tables(engine)
    with engine.connect() as connection:
        names = sorted(connection.scalars(sa.select(STUDIES.c.study_name)))
        known = ", ".join(names) or "(none)"
        if name is None and len(names) != 1:
            raise ConfigurationError(f"no study was named; use one of {known} (--study_name)")
        name = names[0] if name is None else name
        study_id = connection.scalar(
            sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == name)
        )
        if study_id is None:
            gone = connection.execute(identity.gone(name)).first()
            if gone is not None:
                return Whole(name=name, **gone._mapping, is_gone=True)
            raise ConfigurationError(f"no study named '{name}'; use one of {known} (--study_name)")
        own = connection.scalar(
            sa.select(ATTRIBUTES.c.value_json).where(
                ATTRIBUTES.c.study_id == study_id, ATTRIBUTES.c.key == UID
            )
        )
    uid = None if own is None else uid_of({UID: json.loads(own)})
    # `optuna.copy_study` copies the uid, too, but the rows of that uid are the original's.
    first = None if uid is None else identity.original(engine, uid)
    is_own = first is not None and first.study_id == study_id
    return Whole(name=name, study_id=study_id, uid=uid if is_own else None)


def content(engine: sa.Engine, whole: Whole, folders: Folders) -> Content:
    """Count the rows and list the files of a study."""
    size = sa.func.sum(sa.func.octet_length(artifacts.c.body))
    sizes = sa.select(size).where(whole.rows_to_delete(artifacts)).group_by(artifacts.c.artifact_id)
    stored = sa.select(checkpoints.c.size).where(whole.rows(checkpoints), checkpoints.c.part == 0)
    with engine.connect() as connection:
        return Content(
            rows={table.name: count(connection, whole, table) for table in TABLES},
            artifacts=list(connection.scalars(sizes)),
            stored=list(connection.scalars(stored)),
            checkpoints=_files(folders.checkpoints, whole),
            logs=_files(folders.logs, whole),
        )


def count(connection: sa.Connection, whole: Whole, table: sa.Table) -> int:
    """The number of a study's rows in a table."""
    statement = sa.select(sa.func.count()).select_from(table).where(whole.rows(table))
    return connection.scalar(statement) or 0


def _files(folder: Path, whole: Whole) -> Sequence[Path]:
    found = [] if whole.uid is None else (folder / whole.uid).rglob("*")
    return sorted(path for path in found if path.is_file())


def delete(engine: sa.Engine, whole: Whole, folders: Folders) -> None:
    """Delete a study's rows in one transaction, then its files.

    Copies that Optuna made of it first get rows of their own.

    Raises:
        ConfigurationError: Workers hold its trials.
        StorageError: The role may not delete, so nothing was; or some files are left over.
    """
    refuse_workers(engine, whole)
    if whole.uid is not None and not whole.is_gone:
        identity.divide_all(engine, whole.uid)
    try:
        with engine.begin() as connection:
            # The lock keeps workers from taking the study's tickets until the end.
            held = sa.select(tickets.c.ticket).where(whole.rows(tickets)).with_for_update()
            connection.execute(held)
            refuse_workers(engine, whole)
            # Artifacts are deleted first, because other rows link them to the study.
            for table in reversed(TABLES):
                connection.execute(sa.delete(table).where(whole.rows_to_delete(table)))
            if whole.uid is not None:
                identity.remember(connection, whole.uid, study_id=whole.study_id, name=whole.name)
    except DBAPIError as error:
        if not lacks_right(error):
            raise
        reason = str(error.orig).strip().splitlines()[0]
        raise StorageError(
            f"study '{whole.name}' is whole as it was: role '{engine.url.username}' may not "
            f"delete it ({reason}); name the role that owns the tables (--storage or HPO_STORAGE)"
        ) from error
    if whole.uid is not None:
        remove([folders.checkpoints / whole.uid, folders.logs / whole.uid])


def lacks_right(error: DBAPIError) -> bool:
    """Return whether the database refused a statement for lack of a right (SQLSTATE 42501)."""
    return getattr(error.orig, "pgcode", None) == "42501"


def remove(folders: Sequence[Path]) -> None:
    """Remove folders with all that they hold.

    Raises:
        StorageError: Some files are left over.
    """
    for folder in folders:
        try:
            if folder.is_dir():
                shutil.rmtree(folder)
        except OSError as error:
            raise StorageError(
                f"the study is deleted, but not all files below '{folder}': {error.strerror}; "
                "remove that folder by hand"
            ) from error


def refuse_workers(engine: sa.Engine, whole: Whole) -> None:
    """Refuse to continue while workers hold trials of a study.

    Raises:
        ConfigurationError: They do; up to four are named.
    """
    held: Sequence[Lease] = () if whole.uid is None else Tickets(engine, whole.uid).live()
    live = [x.worker for x in held if x.silent_s < LEASE_S and not is_dead(x.process)]
    if live:
        more = f" and {len(live) - 4} more" if len(live) > 4 else ""
        raise ConfigurationError(
            f"study '{whole.name}' is being worked on by {', '.join(live[:4])}{more}; end its run "
            "with Ctrl-C, then repeat this command"
        )
