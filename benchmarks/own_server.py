"""A server of a benchmark's own, and the load on it: transactions and CPU time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from hpo.embedded import server as postgres

_CONNECTIONS = 1100
_XACTS = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'hpo'"


@contextmanager
def own_server() -> Iterator[postgres.Server]:
    """A server that nobody else uses."""
    home = Path(tempfile.mkdtemp(prefix="hpo-waiting-"))
    home.chmod(0o755)
    try:
        server = postgres.start(home)
        ask(server.superuser_url, f"ALTER SYSTEM SET max_connections = {_CONNECTIONS}")
        postgres.stop(home)
        yield postgres.start(home)
    finally:
        postgres.stop(home, immediate=True)
        shutil.rmtree(home, ignore_errors=True)


def ask(url: str, statement: str) -> Any:
    """The value of a statement, in a session of its own.

    Args:
        url: A URL of the server for libpq.
    """
    connection = psycopg2.connect(url.rsplit("/", 1)[0] + "/postgres")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


class Load:
    """Transactions and CPU time of a server from its making on."""

    def __init__(self, server: postgres.Server) -> None:
        self._server = server
        self._began_at, self._xacts, self._cpu_s = time.monotonic(), *self._read()

    def _read(self) -> tuple[int, float]:
        pid = int((self._server.data / "postmaster.pid").read_text().split()[0])
        cpu_s = 0.0
        for process in [psutil.Process(pid), *psutil.Process(pid).children()]:
            try:
                cpu_s += sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
        return int(ask(self._server.libpq_url, _XACTS)), cpu_s

    def since(self) -> dict[str, float]:
        """The rates since then."""
        seconds, (xacts, cpu_s) = time.monotonic() - self._began_at, self._read()
        return {
            "transactions_per_s": round((xacts - self._xacts) / seconds, 1),
            "server_cores": round((cpu_s - self._cpu_s) / seconds, 3),
        }
