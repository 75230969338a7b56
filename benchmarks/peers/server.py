"""The benchmark's own PostgreSQL server: templates, copies of them, and the CPU that it takes."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from faults.database import Database
from sqlalchemy.engine import make_url

from peers.processes import environment, tree_cpu_s

_ROUND_TRIPS = 200


class Server:
    """A server in a folder of its own, which is removed with it.

    Attributes:
        pid: The process of the postmaster, whose children are all others of the server.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder, self.database = folder, Database(folder)
        if settings:
            self.database.settings(**settings)
        self.pid = self._postmaster()

    def _postmaster(self) -> int:
        [(folder,)] = self.database.query("SELECT current_setting('data_directory')")
        return int((Path(str(folder)) / "postmaster.pid").read_text().split()[0])

    def url(self, name: str, *, port: int | None = None) -> str:
        """The URL of a database, behind another port if one is given."""
        url = make_url(self.database.url).set(database=name, port=port or self.database.port)
        return url.render_as_string(hide_password=False)

    def connect(self, name: str) -> Any:
        """A connection to a database, on which each statement is a transaction."""
        connection = psycopg2.connect(self.url(name).replace("+psycopg2", ""))
        connection.autocommit = True
        return connection

    def make(self, name: str, *, template: str = "template1") -> None:
        """Make a database as a copy of another one."""
        self.drop(name)
        owner = make_url(self.database.url).username
        self.database.query(
            f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {template} STRATEGY FILE_COPY"
        )

    def drop(self, name: str) -> None:
        """Remove a database, and whoever is connected to it."""
        self.database.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def cpu_s(self) -> float:
        """CPU seconds of all processes of the server so far."""
        return tree_cpu_s(psutil.Process(self.pid))

    @contextmanager
    def delayed(self, round_trip_ms: float) -> Iterator[int]:
        """A port behind which each round trip takes so much longer."""
        proxy = subprocess.Popen(
            [sys.executable, "-m", "peers.network", str(self.database.port), str(round_trip_ms)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert proxy.stdout is not None
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()
            proxy.wait()

    def round_trip_ms(self, port: int | None = None) -> float:
        """The median time of an empty statement."""
        url = self.url("postgres", port=port).replace("+psycopg2", "")
        connection = psycopg2.connect(url)
        connection.autocommit = True
        taken = []
        with connection.cursor() as cursor:
            for _ in range(_ROUND_TRIPS):
                begun = time.perf_counter()
                cursor.execute("SELECT 1")
                taken.append(time.perf_counter() - begun)
        connection.close()
        return 1000 * statistics.median(taken)


@contextmanager
def started(**settings: str) -> Iterator[Server]:
    """A server on the disk of /tmp, which PostgreSQL's account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-coordination-", dir="/tmp"))
    folder.chmod(0o755)
    server = None
    try:
        server = Server(folder, settings)
        yield server
    finally:
        if server is not None:
            server.database.stop()
        shutil.rmtree(folder, ignore_errors=True)
