"""Checks of the database: connection, latency, encoding, tables, privileges, clock.

Border: only reads, every statement is a query. It starts the embedded server, as any command does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hpo.database.connection import connect, mask, parse_url
from hpo.database.limits import Room, needed, room
from hpo.database.migrations import FLOOR, is_complete
from hpo.database.preconditions import Found, foreign, grants, look, missing_right
from hpo.database.schema import SCHEMA_VERSION
from hpo.doctor.finding import Finding, failed, guarded, ok, warning
from hpo.embedded import server
from hpo.errors import StorageError
from hpo.machine.slots import usable_cores

_ROUND_TRIPS = 20
_SLOW_MS = 5.0  # a trial makes some hundred round trips
_SKEW_S = 5.0
# Our tables have a schema of their own; those of Optuna are recognized by name only.
_TABLES = """
    SELECT c.oid, c.relkind, n.nspname AS schema, n.nspname || '.' || c.relname AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND (n.nspname = 'hpo' OR pg_table_is_visible(c.oid)
    AND c.relname ~ '^(studies|study_|trials|trial_|version_info|alembic_version)')
"""
_MISSING = f"""
    WITH t AS ({_TABLES}),
    wanted(kind, what) AS (VALUES ('r', 'SELECT'), ('r', 'INSERT'), ('r', 'UPDATE'),
    ('r', 'DELETE'), ('S', 'USAGE'))
    SELECT what, string_agg(name, ' ' ORDER BY name) FROM t JOIN wanted
    ON wanted.kind = CASE relkind WHEN 'S' THEN 'S' ELSE 'r' END
    WHERE (what = 'SELECT' OR name !~ 'version') AND CASE
    WHEN NOT has_schema_privilege(schema, 'USAGE') THEN true
    WHEN relkind = 'S' THEN NOT has_sequence_privilege(t.oid, what)
    ELSE NOT has_table_privilege(t.oid, what) END
    GROUP BY what
"""


class _Database:
    """A database that accepts connections."""

    def __init__(self, url: str) -> None:
        self._engine = connect(url)

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    def row(self, statement: str) -> tuple[object, ...]:
        return self.rows(statement)[0]

    def round_trips_ms(self, count: int) -> list[float]:
        took_ms = []
        with self._engine.connect() as connection:
            for _ in range(count):
                begin = time.perf_counter()
                connection.exec_driver_sql("SELECT 1")
                took_ms.append(1000 * (time.perf_counter() - begin))
        return took_ms

    def found(self) -> Found:
        return look(self._engine)

    def room(self) -> Room | None:
        return room(self._engine)

    def close(self) -> None:
        self._engine.dispose()


def examine(home: Path, storage: str | None) -> Iterator[Finding]:
    """Run all checks of the database, or only the first if it cannot be reached."""
    reached: list[_Database] = []
    yield from guarded("database", partial(_reached, home, storage, reached))
    for db in reached:
        for name, check in {
            "round trip": _round_trip,
            "encoding": _encoding,
            "tables": _tables,
            "rights": _rights,
            "connections": _connections,
            "clock": _clock,
            "studies": _studies,
        }.items():
            yield from guarded(name, partial(check, db))
        db.close()


def _reached(home: Path, storage: str | None, reached: list[_Database]) -> Iterator[Finding]:
    if storage is None:
        was_running = server.running(home) is not None
        url = server.start(home).url
        how = f"embedded, {'running' if was_running else 'started just now'}, '{mask(url)}'"
    else:
        url = parse_url(storage).render_as_string(hide_password=False)
        how = f"'{mask(url)}'"
    try:
        db = _Database(url)
    except StorageError as error:
        cure = "see that it runs and lets this host in, and that user, password and name are right"
        yield failed("database", str(error), cure)
        return
    version, is_read_only, is_standby = db.row(
        "SELECT current_setting('server_version'), "
        "current_setting('transaction_read_only') = 'on', pg_is_in_recovery()",
    )
    reached.append(db)
    found = f"{how}, PostgreSQL {str(version).split()[0]}"
    if is_standby:
        yield failed("database", f"{found}, a standby", "name the primary server in the URL")
    elif is_read_only:
        cure = "ALTER ROLE (or DATABASE) ... SET default_transaction_read_only = off"
        yield failed("database", f"{found}, read-only for this role", cure)
    else:
        yield ok("database", found)


def _round_trip(db: _Database) -> Iterator[Finding]:
    median_ms = statistics.median(db.round_trips_ms(_ROUND_TRIPS))
    found = f"{median_ms:.1f} ms, the median of {_ROUND_TRIPS}"
    if median_ms > _SLOW_MS:
        cure = "use a database nearer to the workers: a trial makes some hundred round trips"
        yield warning("round trip", found, cure)
    else:
        yield ok("round trip", found)


def _encoding(db: _Database) -> Iterator[Finding]:
    (encoding,) = db.row("SHOW server_encoding")
    if encoding == "UTF8":
        yield ok("encoding", "UTF8")
    else:
        cure = "CREATE DATABASE hpo ENCODING 'UTF8' TEMPLATE template0; and name that one"
        yield failed("encoding", f"{encoding}, and names and messages need UTF8", cure)


def _tables(db: _Database) -> Iterator[Finding]:
    found = db.found()
    wrong, version = foreign(found), found.version
    if wrong is not None:
        yield failed("tables", *wrong)
    elif version is None:
        yield ok("tables", "none yet; the first run makes them")
    elif version == SCHEMA_VERSION:
        yield ok("tables", f"version {version}, as this program's")
    elif version < FLOOR:
        text = f"version {version}, of before the first release"
        cure = "name another database (--storage or HPO_STORAGE), or drop its schema hpo"
        yield failed("tables", text, cure)
    elif version < SCHEMA_VERSION:
        text = f"version {version}; the next run brings them to {SCHEMA_VERSION}"
        if found.owns_tables:
            yield ok("tables", text)
        else:
            cure = "run any command once as the role that owns them (--storage or HPO_STORAGE)"
            yield failed("tables", f"{text}, and role '{found.role}' does not own them", cure)
    else:
        text = f"version {version}, and this program knows {SCHEMA_VERSION}"
        yield failed("tables", text, "use the version of hpo that made them, or a later one")


def _rights(db: _Database) -> Iterator[Finding]:
    """Check that the role may use all tables, or may create them if they are missing."""
    found = db.found()
    role, lacking = found.role, None if is_complete(found) else missing_right(found)
    missing = {str(what): str(names).split() for what, names in db.rows(_MISSING)}
    needed = [what for what in missing if what != "DELETE"]
    # A worker ends a lease, and leaves the crew, by deleting a row.
    if {"hpo.leases", "hpo.workers"} & set(missing.get("DELETE", ())):
        needed.append("DELETE")
    if needed:
        text = "; ".join(
            f"no {what} on {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
            for what, names in ((what, missing[what]) for what in needed)
        )
        yield failed("rights", f"role '{role}' has {text}", grants(found))
    elif lacking is not None:
        yield failed("rights", lacking[0], f"{lacking[1]}; or let its owner run once")
    elif missing:
        text = f"role '{role}' runs studies, and may not delete one ({missing['DELETE'][0]})"
        cure = f'GRANT DELETE ON ALL TABLES IN SCHEMA {found.optunas}, hpo TO "{role}"'
        yield warning("rights", text, cure)
    else:
        yield ok("rights", f"role '{role}' may do all that a study needs, and delete one")


def _connections(db: _Database) -> Iterator[Finding]:
    found, workers = db.room(), usable_cores()
    if found is None:
        yield ok("connections", "a pooler's, which has limits of its own")
        return
    text = f"{found.used} of {found.most} in use ({found.name})"
    if found.free < needed(workers):
        lacking = f"{workers} workers and their run take {needed(workers)}"
        cure = f"end other clients, or raise {found.name}"
        yield warning("connections", f"{text}, and {lacking}", cure)
    else:
        yield ok("connections", text)


def _clock(db: _Database) -> Iterator[Finding]:
    begin = time.time()
    (theirs,) = db.row("SELECT extract(epoch FROM clock_timestamp())::float8")
    ahead_s = float(str(theirs)) - (begin + time.time()) / 2
    found = f"the database's is {ahead_s:+.1f} s from this host's"
    if abs(ahead_s) > _SKEW_S:
        cure = "set both clocks (timedatectl set-ntp true); leases go by the database's alone"
        yield warning("clock", found, cure)
    else:
        yield ok("clock", found)


def _studies(db: _Database) -> Iterator[Finding]:
    count: object = 0
    if db.row("SELECT to_regclass('studies') IS NOT NULL")[0]:
        (count,) = db.row("SELECT count(*) FROM studies")
    yield ok("studies", str(count))
