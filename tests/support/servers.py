"""Servers and databases of tests: one server for a whole session, templates, clones."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.embedded import server as postgres
from hpo.embedded.server import Server

# Where a session's server lies, as a file in the folder that all of its processes share.
_SERVER = "server"


def open_folder() -> Path:
    """A folder that every account can reach, as a home of root's may be.

    Not pytest's own: that is root's alone (0700), and PostgreSQL's account cannot reach it. Memory
    serves as disk where there is enough: a database is 1,000 files, and no test cuts the power.
    """
    parent = Path("/dev/shm")
    disk = os.statvfs(parent) if parent.is_dir() else None
    if disk is None or disk.f_bavail * disk.f_frsize < 2**30 or disk.f_flag & os.ST_NOEXEC:
        parent = Path("/tmp")
    path = Path(tempfile.mkdtemp(prefix="hpo-test-", dir=parent))
    path.chmod(0o755)
    return path


def query(server: Server, sql: str, *, as_superuser: bool = False) -> list[tuple[object, ...]]:
    """The result of a statement."""
    connection = psycopg2.connect(server.superuser_url if as_superuser else server.libpq_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def commands_in(folder: Path) -> dict[int, str]:
    """The command lines of the living processes that work below a folder or name it there."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            at = str((entry / "cwd").readlink())
            command = (entry / "cmdline").read_text(errors="replace")
        except OSError:  # ended meanwhile, as a server's short-lived helpers do
            continue
        if str(folder) in at + command and int(entry.name) != os.getpid():
            found[int(entry.name)] = command
    return found


def processes_in(folder: Path) -> set[int]:
    """The living processes that work below a folder or name it."""
    return set(commands_in(folder))


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep the session's other processes out."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def session_server(shared: Path) -> Server:
    """The session's one server, started by whoever needs it first, with all tables."""
    place = shared / _SERVER
    with locked(shared / "server.lock"):
        if place.exists():
            return postgres.start(Path(place.read_text()))
        home = open_folder()
        place.write_text(str(home))
        server = postgres.start(home)
        engine = connect(server.url)
        create_tables(engine)
        # A database that somebody is connected to is no template.
        engine.dispose()
        return server


def stop_session_server(shared: Path) -> None:
    """End the session's server, if there is one."""
    place = shared / _SERVER
    if place.exists():
        home = Path(place.read_text())
        postgres.stop(home, immediate=True)
        shutil.rmtree(home, ignore_errors=True)
        place.unlink()


def admin(server: Server, statement: str, *, as_superuser: bool = False) -> None:
    """Run a statement outside of every database that a test uses."""
    login = server.superuser_url if as_superuser else server.libpq_url
    connection = psycopg2.connect(login.rsplit("/", 1)[0] + "/postgres")
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


def leave(server: Server, database: str) -> None:
    """Disconnect whoever is still connected: it would keep the database from being a template."""
    admin(
        server,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        f"WHERE datname = '{database}'",
    )


@contextmanager
def database(server: Server, *, template: str | None = None) -> Iterator[str]:
    """The URL of a database of one's own: empty, or a clone."""
    name = f"t{uuid.uuid4().hex[:12]}"
    admin(server, f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    yield url_of(server, name)
    # Sessions of a role that a test has dropped meanwhile are nobody's, and the superuser's to end.
    admin(server, f"DROP DATABASE {name} WITH (FORCE)", as_superuser=True)


def url_of(server: Server, database: str) -> str:
    """The URL of a database of a server."""
    return server.url.rsplit("/", 1)[0] + f"/{database}"


def template(
    server: Server, shared: Path, name: str, fill: Callable[[str, Path], None]
) -> tuple[str, Path]:
    """A database and a home that were filled once for the whole session: to be cloned.

    Args:
        fill: Called with the database's URL and the home by whoever needs it first.
    """
    home = shared / f"template-{name}"
    with locked(shared / f"{name}.lock"):
        done = shared / f"{name}.done"
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            admin(server, f"DROP DATABASE IF EXISTS template_{name}")
            admin(server, f"CREATE DATABASE template_{name} TEMPLATE {server.database}")
            fill(url_of(server, f"template_{name}"), home)
            leave(server, f"template_{name}")
            done.touch()
    return f"template_{name}", home
