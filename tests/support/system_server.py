"""A server of the system's PostgreSQL, which this program did not set up."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SYSTEM = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@dataclass(frozen=True, kw_only=True)
class SystemServer:
    """A running server.

    Attributes:
        url: The URL of a database of a role that is no superuser, quoted as a URL demands it.
    """

    url: str
    port: int


@contextmanager
def system_server(prepare: Callable[[Path], None] | None = None) -> Iterator[SystemServer]:
    """Start the system's PostgreSQL; skip the test where there is none.

    Args:
        prepare: Called with the data folder before the server starts.
    """
    if not SYSTEM:
        pytest.skip("no PostgreSQL server of the system here")
    if os.getuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("no account to run the system's PostgreSQL as")
    as_server = {"user": "postgres"} if os.getuid() == 0 else {}
    programs = SYSTEM[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="hpo-system-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*command: str, text: str | None = None) -> None:
        subprocess.run(
            command, check=True, cwd=folder, input=text, text=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, **as_server,
        )  # fmt: skip

    data = folder / "data"
    run(str(programs / "initdb"), "-D", str(data), "-U", "admin", "--auth=trust")
    if prepare is not None:
        prepare(data)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    control = (str(programs / "pg_ctl"), "-D", str(data))
    run(*control, "-o", options, "-w", "-l", f"{data}/log", "start")
    try:
        psql = (str(programs / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "admin")
        run(*psql, "-d", "postgres", text="CREATE ROLE me LOGIN PASSWORD 'a@b/c';")
        run(*psql, "-d", "postgres", text="CREATE DATABASE mine OWNER me;")
        url = f"postgresql+psycopg2://me:a%40b%2Fc@127.0.0.1:{port}/mine"
        yield SystemServer(url=url, port=port)
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
