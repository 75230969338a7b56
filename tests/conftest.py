"""A real PostgreSQL for the whole session, and a fresh database of it for each test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
import torch

from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.embedded import server as postgres

torch.set_num_threads(1)
# A shell has what it starts in the background ignore Ctrl-C, and children inherit that; programs
# that are sent it here are to obey.
signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    # Not pytest's own folder: that one is closed to the account that PostgreSQL runs as for root.
    home = Path(tempfile.mkdtemp(prefix="hpo-test-"))
    home.chmod(0o755)
    server = postgres.start(home)
    create_tables(connect(server.url))
    yield server
    postgres.stop(home, immediate=True)
    shutil.rmtree(home, ignore_errors=True)


def _admin(server: postgres.Server, statement: str) -> None:
    connection = psycopg2.connect(server.libpq_url.rsplit("/", 1)[0] + "/postgres")
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


@pytest.fixture
def empty_url(server: postgres.Server) -> Iterator[str]:
    """A database without a table."""
    name = f"t{uuid.uuid4().hex[:12]}"
    _admin(server, f"CREATE DATABASE {name}")
    yield server.url.rsplit("/", 1)[0] + f"/{name}"
    _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def url(server: postgres.Server) -> Iterator[str]:
    """A database with all tables, cloned from the session's."""
    name = f"t{uuid.uuid4().hex[:12]}"
    statement = f"CREATE DATABASE {name} TEMPLATE {server.database}"
    # Whoever is still leaving the template would make it refuse.
    _admin(
        server,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{server.database}'",
    )
    _admin(server, statement)
    yield server.url.rsplit("/", 1)[0] + f"/{name}"
    _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


class Program:
    """`python -m hpo` as a real process against one database and one home."""

    def __init__(self, url: str | None, home: Path) -> None:
        self.home = home
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HPO_")},
            "HPO_HOME": str(home),
            "PYTHONWARNINGS": "ignore",
        }
        if url is not None:
            self.environment["HPO_STORAGE"] = url

    def __call__(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hpo", *args],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hpo", *args],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def program(url: str, tmp_path: Path) -> Program:
    return Program(url, tmp_path / "home")


def wait_until(condition: Callable[[], object], *, timeout_s: float = 60.0) -> None:
    """Wait for a condition, and fail when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    direct = [int(line) for line in found.stdout.split()]
    return [*direct, *(grandchild for child in direct for grandchild in children(child))]


def kill_all(pid: int) -> None:
    """kill -9 of a process and everything below it."""
    for victim in [*children(pid), pid]:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
