"""Copy a study with all its rows and files to another database or another name.

The copy reads one snapshot of the source and writes one transaction at the target, so that an
interrupted copy leaves nothing. Rows are streamed in parts, with values as the driver returns them.
Border: rows and files, as in `deletion`; no prompts, no output.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.exc import DBAPIError

from hpo.database.connection import lock, mask, stay
from hpo.database.migrations import create_tables
from hpo.database.schema import (
    artifacts,
    checkpoints,
    controls,
    hosts,
    leases,
    metrics,
    spans,
    spending,
    tickets,
    workers,
)
from hpo.errors import ConfigurationError, RunFailed, StorageError
from hpo.study.deletion import TABLES, Whole, count, lacks_right
from hpo.study.identity import STUDIES, TRIALS
from hpo.study.staging import staged
from hpo.study.study import OpenStudy

# Leases and heartbeats are not copied, because their workers work on the source. What was spent is
# the source's: a copy begins with nothing spent, and without limits.
_OF_WORKERS = (leases, workers, hosts, controls, spending, spans)
_NOT_COPIED = (*_OF_WORKERS, models.TrialHeartbeatModel.__table__)
_COPIED = [table for table in TABLES if table not in _NOT_COPIED]
_FILES = (artifacts, checkpoints)
_ID_LENGTH = 36
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# This many rows are in memory at a time. A row of a file's has 1 MiB, and several copies of it
# exist on its way.
_ROWS, _PARTS = 1000, 4

_TRY_LOCK = sa.func.pg_try_advisory_xact_lock(sa.func.hashtextextended("hpo copy", 0))

# The arguments are the table, the number of rows copied so far and the number of all rows.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Copied:
    """The result of a copy.

    Attributes:
        rows: Number of copied rows.
        total: Number of trials, ended or not.
        checkpoints: Folder of the copy's checkpoints; None if this host has none.
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
    """Copy a study; the copy gets a uid of its own, and both studies may continue.

    The copy's open trials resume from their checkpoints if these are below `checkpoints`. Workers
    may work on the source meanwhile: the copy shows its state at the start.

    Raises:
        ConfigurationError: The target has a study of this name, or the source was deleted.
        StorageError: The target cannot be used.
        RunFailed: The copy was interrupted.
    """
    uid = str(uuid.uuid4())
    try:
        create_tables(target)
        with target.connect() as connection:
            _refuse_existing(connection, name)
        with staged(checkpoints, opened.uid, uid) as publish, target.begin() as writer:
            _claim(writer, name)
            # This isolation level reads one snapshot, taken at the first statement.
            with source.connect().execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            ) as reader:
                moved = _Move(reader, writer, _identify(reader, opened), name=name, uid=uid)
                moved.run(progress)
            total = writer.scalar(
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


def _identify(connection: sa.Connection, opened: OpenStudy) -> Whole:
    study_id = connection.scalar(
        sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == opened.name)
    )
    if study_id is None:
        raise ConfigurationError(f"study '{opened.name}' was deleted meanwhile")
    return Whole(name=opened.name, study_id=study_id, uid=opened.uid)


def _claim(connection: sa.Connection, name: str) -> None:
    """Exclude other copies and other creations of this study until the transaction ends."""
    # Two concurrent copies of one study would both find its attempts' uids unused at the target.
    if not connection.scalar(sa.select(_TRY_LOCK)):
        raise StorageError(
            f"another study is being copied to '{mask(connection.engine.url)}'; repeat this "
            "command when that has ended (--to)"
        )
    # A run that creates a study of this name holds the same lock.
    lock(connection, f"hpo study {name}")
    # A part of the source may take long to read.
    stay(connection)
    _refuse_existing(connection, name)


def _refuse_existing(connection: sa.Connection, name: str) -> None:
    if connection.scalar(sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == name)):
        raise ConfigurationError(
            f"there is a study named '{name}' in '{mask(connection.engine.url)}' already; give "
            "the copy another name (--as NEW_NAME)"
        )


class _Move:
    """The transfer of one study's rows from one transaction to another."""

    def __init__(
        self, reader: sa.Connection, writer: sa.Connection, whole: Whole, *, name: str, uid: str
    ) -> None:
        self._reader, self._writer, self._study = reader, writer, whole
        self._name, self._uid = name, uid
        self._sizes = {table: count(reader, whole, table) for table in _COPIED}
        # Both map old to new: numbers by the column that holds them, and uids in any text.
        self._numbers = {
            table.primary_key.columns[0].name: self._new_numbers(table)
            for table in (STUDIES, TRIALS)
        }
        self._names = {str(whole.uid): uid}
        for column in (metrics.c.run_uid, artifacts.c.artifact_id):
            self._names |= self._new_names(column)
        self.done = 0

    def run(self, progress: Progress) -> None:
        """Copy every table, and open the tickets that are leased at the source."""
        total = sum(self._sizes.values())
        for table in _COPIED:
            for rows in self._read(table):
                _insert(self._writer, table, rows)
                self.done += len(rows)
                progress(table.name, self.done, total)
        self._writer.execute(
            tickets.update()
            .where(tickets.c.study_uid == self._uid, tickets.c.state == "leased")
            .values(state="open")
        )

    def _read(self, table: sa.Table) -> Iterator[Sequence[dict[str, Any]]]:
        """The rows of a table in the order of its key, with the target's numbers and uids."""
        columns = [_raw(column).label(column.name) for column in table.columns]
        found = self._reader.execute(
            sa.select(*columns).where(self._study.rows(table)).order_by(*table.primary_key),
            execution_options={"yield_per": _PARTS if table in _FILES else _ROWS},
        )
        # The target numbers those rows of Optuna's itself that no other row refers to.
        given = {c.name for c in table.primary_key if table.schema is None} - set(self._numbers)
        for part in found.mappings().partitions():
            yield [
                {name: self._new(name, row[name]) for name in row if name not in given}
                for row in part
            ]

    def _new(self, column: str, value: Any) -> Any:
        # One is the column's name in Optuna's table of studies, the other in that of identities.
        if column in ("study_name", "name"):
            return self._name
        if column in self._numbers:
            return self._numbers[column][value]
        if isinstance(value, str) and len(value) >= _ID_LENGTH:
            return _ID.sub(lambda found: self._names.get(found[0], found[0]), value)
        return value

    def _new_numbers(self, table: sa.Table) -> Mapping[int, int]:
        (key,) = table.primary_key
        old = list(
            self._reader.scalars(sa.select(key).where(self._study.rows(table)).order_by(key))
        )
        sequence = sa.func.pg_get_serial_sequence(table.name, key.name)
        each = sa.func.generate_series(1, len(old)).table_valued("n")
        new = self._writer.scalars(sa.select(sa.func.nextval(sequence)).select_from(each))
        return dict(zip(old, sorted(new), strict=True))

    def _new_names(self, column: sa.Column[str]) -> Mapping[str, str]:
        """New uids for attempts and artifacts that exist at the target, from an earlier copy."""
        used = sa.select(column).where(self._study.rows(column.table)).distinct()
        names = sa.select(column).where(column.in_(list(self._reader.scalars(used)))).distinct()
        return {old: str(uuid.uuid4()) for old in self._writer.scalars(names)}


def _insert(writer: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of one table, with values as `_raw` reads them."""
    names = list(rows[0])
    if table in _FILES:
        # As text, a file would be held in memory twice as large.
        into = sa.table(table.name, *map(sa.column, names), schema=table.schema)
        writer.execute(sa.insert(into), rows)
        return
    # One JSON text costs half of what a parameter for each value does, in this process.
    dialect, quote = writer.dialect, writer.dialect.identifier_preparer.quote
    kinds = {name: table.c[name].type.compile(dialect) for name in names}
    columns = ", ".join(map(quote, names))
    values = ", ".join(f"CAST(x.{quote(name)} AS {kind})" for name, kind in kinds.items())
    texts = ", ".join(f"{quote(name)} text" for name in names)
    writer.exec_driver_sql(
        f"INSERT INTO {table} ({columns}) SELECT {values} "
        f"FROM json_to_recordset(%(rows)s) AS x({texts})",
        {"rows": json.dumps(rows)},
    )


def _raw(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A column's values: numbers and files as the driver returns them, all others as text.

    The text of a float is exact, and that of JSON keeps SQL NULL apart from a JSON `null`.
    """
    if isinstance(column.type, (sa.Integer, sa.LargeBinary)):
        return sa.type_coerce(column, sa.types.NullType())
    return sa.cast(column, sa.Text)
