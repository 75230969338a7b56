"""A study copied to another database, or to another name, with all that belongs to it.

All in one transaction there, from one snapshot here: cut off at any point, nothing of it is left.
Rows pass in parts, their values as the driver has them. Border: as `whole_study`.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.exc import DBAPIError

from hpo.database.connection import mask
from hpo.database.migrations import create_tables
from hpo.database.schema import (
    artifacts,
    leases,
    metrics,
    tickets,
)
from hpo.errors import ConfigurationError, RunFailed, StorageError
from hpo.study.deletion import (
    STUDIES,
    TABLES,
    TRIALS,
    Whole,
    count,
    lacks_right,
)
from hpo.study.study import OpenStudy

# Who works on a study works on it there, not on its copy.
_LEFT = (leases, models.TrialHeartbeatModel.__table__)
_COPIED = [table for table in TABLES if table not in _LEFT]
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Rows in memory at a time; those of artifacts have 1 MiB, held several times on its way.
_ROWS, _PARTS = 1000, 4

# Table, rows copied so far, rows in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a copy came to.

    Attributes:
        total: Of trials, ended or not.
        checkpoints: The folder of the copy's, if there are any on this host.
    """

    name: str
    uid: str
    rows: int
    total: int
    checkpoints: Path | None


def copy(
    source: sa.Engine,
    opened: OpenStudy,
    target: sa.Engine,
    *,
    name: str,
    checkpoints: Path,
    progress: Progress,
) -> Copied:
    """Copy a study; the copy has a uid of its own, and both may go on.

    Its open trials go on from their checkpoints, where these are below `checkpoints`. The source
    may be worked on meanwhile: what is copied is how it stood at the beginning.

    Raises:
        ConfigurationError: There is a study of this name.
        StorageError: The target cannot be used.
        RunFailed: The copy was cut off.
    """
    uid = str(uuid.uuid4())
    try:
        create_tables(target)
        with target.connect() as connection:
            _refuse_existing(connection, name)
        with _staged(checkpoints, opened.uid, uid) as publish, target.begin() as there:
            _claim(there, name)
            # One snapshot, of how the source stands at the first statement.
            with source.connect().execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            ) as here:
                moved = _Move(here, there, _whole(here, opened), name=name, uid=uid)
                moved.run(progress)
            total = there.scalar(
                sa.select(sa.func.count()).select_from(tickets).where(tickets.c.study_uid == uid)
            )
            folder = publish()
    except DBAPIError as error:
        reason = str(error.orig or error).strip().splitlines()[0]
        if lacks_right(error):
            raise StorageError(
                f"'{mask(target.url)}' cannot be written: {reason}; name a role that may create "
                "tables and fill them (--to)"
            ) from error
        raise RunFailed(
            f"the copy of study '{opened.name}' to '{mask(target.url)}' was cut off: {reason}; "
            "nothing of it is kept there, and the same command begins anew"
        ) from error
    return Copied(name=name, uid=uid, rows=moved.done, total=total or 0, checkpoints=folder)


def _whole(connection: sa.Connection, opened: OpenStudy) -> Whole:
    study_id = connection.scalar(
        sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == opened.name)
    )
    if study_id is None:
        raise ConfigurationError(f"study '{opened.name}' was deleted meanwhile")
    return Whole(name=opened.name, study_id=study_id, uid=opened.uid)


def _claim(connection: sa.Connection, name: str) -> None:
    """Keep others from creating this study until the transaction ends, and other copies out."""
    lock = sa.func.hashtextextended
    # One at a time: two copies of one study would both take its attempts' names for free.
    if not connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(lock("hpo copy", 0)))):
        raise StorageError(
            f"another study is being copied to '{mask(connection.engine.url)}'; repeat this "
            "command when that has ended (--to)"
        )
    # What a run that creates a study holds.
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock(f"hpo study {name}", 0))))
    _refuse_existing(connection, name)


def _refuse_existing(connection: sa.Connection, name: str) -> None:
    if connection.scalar(sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == name)):
        raise ConfigurationError(
            f"there is a study named '{name}' in '{mask(connection.engine.url)}' already; give "
            "the copy another name (--as NEW_NAME)"
        )


class _Move:
    """The rows of one study on their way from one transaction to another."""

    def __init__(
        self, here: sa.Connection, there: sa.Connection, whole: Whole, *, name: str, uid: str
    ) -> None:
        self._here, self._there, self._whole = here, there, whole
        self._name, self._uid = name, uid
        self._sizes = {table: count(here, whole, table) for table in _COPIED}
        # Old to new: numbers by the column that refers to them, and names in any text.
        self._numbers = {
            table.primary_key.columns[0].name: self._new_numbers(table)
            for table in (STUDIES, TRIALS)
        }
        self._names = {str(whole.uid): uid}
        for column in (metrics.c.run_uid, artifacts.c.artifact_id):
            self._names |= self._new_names(column)
        self.done = 0

    def run(self, progress: Progress) -> None:
        """Copy every table, and open what is being worked on."""
        total = sum(self._sizes.values())
        for table in _COPIED:
            for rows in self._read(table):
                into = sa.table(table.name, *map(sa.column, rows[0]), schema=table.schema)
                self._there.execute(sa.insert(into), rows)
                self.done += len(rows)
                progress(table.name, self.done, total)
        self._there.execute(
            tickets.update()
            .where(tickets.c.study_uid == self._uid, tickets.c.state == "leased")
            .values(state="open")
        )

    def _read(self, table: sa.Table) -> Iterator[Sequence[dict[str, Any]]]:
        """The rows of a table, in the order of its key, as they are to be written."""
        columns = [_raw(column).label(column.name) for column in table.columns]
        found = self._here.execute(
            sa.select(*columns).where(self._whole.rows(table)).order_by(*table.primary_key),
            execution_options={"yield_per": _PARTS if table is artifacts else _ROWS},
        )
        # Optuna's rows get numbers of the target's where nobody refers to them.
        given = {c.name for c in table.primary_key if table.schema is None} - set(self._numbers)
        for part in found.mappings().partitions():
            yield [
                {name: self._new(name, row[name]) for name in row if name not in given}
                for row in part
            ]

    def _new(self, column: str, value: Any) -> Any:
        if column == "study_name":
            return self._name
        if column in self._numbers:
            return self._numbers[column][value]
        if isinstance(value, str):
            return _ID.sub(lambda found: self._names.get(found[0], found[0]), value)
        return value

    def _new_numbers(self, table: sa.Table) -> Mapping[int, int]:
        (key,) = table.primary_key
        old = list(self._here.scalars(sa.select(key).where(self._whole.rows(table)).order_by(key)))
        sequence = sa.func.pg_get_serial_sequence(table.name, key.name)
        each = sa.func.generate_series(1, len(old)).table_valued("n")
        new = self._there.scalars(sa.select(sa.func.nextval(sequence)).select_from(each))
        return dict(zip(old, sorted(new), strict=True))

    def _new_names(self, column: sa.Column[str]) -> Mapping[str, str]:
        """Names of attempts and files that are taken at the target, by an earlier copy."""
        used = sa.select(column).where(self._whole.rows(column.table)).distinct()
        names = sa.select(column).where(column.in_(list(self._here.scalars(used)))).distinct()
        return {old: str(uuid.uuid4()) for old in self._there.scalars(names)}


def _raw(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A column's values as the driver has them, JSON and ids as text: NULL is no JSON `null`."""
    if isinstance(column.type, (sa.JSON, sa.Uuid)):
        return sa.cast(column, sa.Text)
    return sa.type_coerce(column, sa.types.NullType())


@contextmanager
def _staged(checkpoints: Path, old: str, new: str) -> Iterator[Callable[[], Path | None]]:
    """Checkpoints set aside as they are now; yields what gives them to the copy.

    Hard links where the disk has them: a checkpoint is never changed in place. Until it is given
    to the copy the folder is within the study's own, and goes with that if it is left behind.
    """
    beside, folder = checkpoints / old / f"{new}.tmp", checkpoints / new
    found = sorted((checkpoints / old).glob("trial_*.pt"))

    def publish() -> Path | None:
        return beside.rename(folder) if found else None

    try:
        if found:
            beside.mkdir(mode=0o700)
        for path in found:
            _link(path, beside / path.name)
        yield publish
    except BaseException as error:
        for leftover in (beside, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunFailed(f"the checkpoints cannot be copied: {error}") from error
        raise


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except FileNotFoundError:
        # Its trial has just ended.
        return
    except OSError:
        shutil.copy2(path, place)
