"""A real PgBouncer before the server, in session and in transaction mode."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.embedded.server import Server
from hpo.errors import StorageError
from hpo.tickets.budget import Tickets
from hpo.worker.idle import Idle
from tests.support.processes import wait_until
from tests.support.program import Program
from tests.support.studies import QUADRATIC, states

pytestmark = pytest.mark.acceptance

_SETTINGS = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = 7
logfile = {folder}/log
"""


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def pooled(server: Server, url: str) -> Iterator[Callable[[str], str]]:
    """The URL of the database behind a PgBouncer of a mode."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no PgBouncer here")
    if os.getuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("no account to run PgBouncer as")
    folder = Path(tempfile.mkdtemp(prefix="hpo-pgbouncer-"))
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            listen = probe.getsockname()[1]
        (folder / "users").write_text(f'"{server.user}" ""\n')
        values = {**vars(server), "listen": listen, "folder": folder, "mode": mode}
        (folder / "ini").write_text(_SETTINGS.format_map(values))
        account = {"user": "postgres"} if os.getuid() == 0 else {}
        if account:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "postgres")
        started.append(
            subprocess.Popen([program, "--quiet", str(folder / "ini")], cwd=folder, **account)
        )
        wait_until(lambda: answers(listen), timeout_s=30)
        return sa.make_url(url).set(port=listen, password=None).render_as_string(False)

    yield start
    for process in started:
        process.terminate()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_two_workers_run_a_study_behind_pgbouncer(pooled, url: str, mode: str, tmp_path: Path):
    program = Program(pooled(mode), tmp_path / "home")

    # Seven connections: three of the run, two of each worker.
    ran = program(*QUADRATIC, "--n_trials", "8", "--workers", "2")

    assert ran.returncode == 0, ran.stderr
    assert sum(states(url).values()) == 8
    assert set(states(url)) <= {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_an_idle_worker_behind_pgbouncer_listens_not_and_finds_a_ticket(
    pooled, url: str, mode: str
):
    study_uid = str(uuid.uuid4())
    tickets = Tickets(connect(url), study_uid)
    tickets.grow(1)
    held = tickets.take(worker="w", slot="s")
    engine = connect(pooled(mode), connections=2, kept=2)
    threading.Timer(1.0, tickets.release, (held.run_uid,)).start()

    with Idle(Tickets(engine, study_uid), threading.Event()) as idle:
        found = idle.wait()
        is_listening = idle._notices.connection is not None

    assert found.is_open
    assert not is_listening


def test_options_of_the_url_that_pgbouncer_refuses_are_explained(pooled):
    own = sa.make_url(pooled("session")).update_query_dict({"options": "-csearch_path=mine"})

    with pytest.raises(StorageError, match=r"PgBouncer, which .* options; leave them out of"):
        connect(own.render_as_string(False))
