"""Any PostgreSQL by URL: a server of the system, of another version, that we did not set up."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from tests.support.program import Program

pytestmark = pytest.mark.acceptance
SYSTEM = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture
def system_url() -> Iterator[str]:
    """A database of the system's PostgreSQL, with a password and a role that is no superuser."""
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

    data = str(folder / "data")
    run(str(programs / "initdb"), "-D", data, "-U", "admin", "--auth=trust")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    run(str(programs / "pg_ctl"), "-D", data, "-o", options, "-w", "-l", f"{data}/log", "start")
    try:
        psql = (str(programs / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "admin")
        run(*psql, "-d", "postgres", text="CREATE ROLE me LOGIN PASSWORD 'a@b/c';")
        run(*psql, "-d", "postgres", text="CREATE DATABASE mine OWNER me;")
        # Quoted as a URL demands it.
        yield f"postgresql+psycopg2://me:a%40b%2Fc@127.0.0.1:{port}/mine"
    finally:
        run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_study_runs_on_a_server_that_only_a_url_names(system_url: str, tmp_path: Path):
    program = Program(system_url, tmp_path / "home")

    ran = program("--objective", "quadratic", "--n_trials", "6", "--workers", "2")
    more = program("--objective", "quadratic", "--n_trials", "8")

    assert ran.returncode == more.returncode == 0, ran.stderr
    study = optuna.load_study(study_name="quadratic-wide-tiny", storage=system_url)
    assert len(study.get_trials()) == 8
    assert "a@b" not in ran.stdout + ran.stderr
    assert "a%40b" not in ran.stdout + ran.stderr
    # Nothing of the embedded server was set up.
    assert not (tmp_path / "home" / "postgres").exists()
