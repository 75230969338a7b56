"""A row's own PostgreSQL server, which no run started, and what is done to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from hpo.embedded import server as postgres

# The campaign's own statements wait out what it does to its server.
_PATIENCE_S = 120.0


class Database:
    """A server in a folder of its own, named to the runs by its URL."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server = postgres.start(home)

    @property
    def url(self) -> str:
        """Its URL, as HPO_STORAGE takes it."""
        return self._server.url

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        return self._server.port

    def start(self) -> None:
        """Start it unless it runs."""
        port, self._server = self.port, postgres.start(self._home)
        assert self.port == port, "the runs know the server by its port"

    def stop(self) -> None:
        """Stop it at once, as a power cut does: connections break, the next start recovers."""
        postgres.stop(self._home, immediate=True)

    def settings(self, **values: str) -> None:
        """Change settings that need a new start."""
        for name, value in values.items():
            self.query(f"ALTER SYSTEM SET {name} = '{value}'")
        self.stop()
        self.start()

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """The rows of a statement, each in a transaction of its own."""
        connection = self._connection()
        try:
            cursor = connection.cursor()
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _connection(self) -> psycopg2.extensions.connection:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                connection = psycopg2.connect(
                    self._server.superuser_url,
                    application_name="campaign",
                    options="-c default_transaction_read_only=off",
                )
            except psycopg2.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                connection.autocommit = True
                return connection

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse all writes, as a demoted primary does."""
        for sql in (
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "SELECT pg_reload_conf()",
        ):
            self.query(sql)
        try:
            yield
        finally:
            self.query("ALTER SYSTEM RESET default_transaction_read_only")
            self.query("SELECT pg_reload_conf()")

    @contextmanager
    def locked(self, *tables: str) -> Iterator[None]:
        """Keep everybody else from reading and writing some tables."""
        connection = self._connection()
        try:
            cursor = connection.cursor()
            while True:
                try:
                    cursor.execute("BEGIN")
                    cursor.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
                    break
                except psycopg2.errors.DeadlockDetected:
                    cursor.execute("ROLLBACK")
            yield
        finally:
            connection.close()
