"""Faults of home folder, disk, embedded server and processes, seen through the real program.

Each fault: exit code 2, one or two lines, no traceback, nothing lost; mended, the same command
works. Full and read-only disks are small tmpfs mounts, which root alone can make.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpo.embedded import folder as pgfolder
from hpo.embedded import server as postgres
from tests.support.program import HANGS_S, ROOT, Program
from tests.support.servers import open_folder, processes_in, query

pytestmark = pytest.mark.acceptance
PIDS = next((p for p in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")) if p.exists()), None)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    path = open_folder()
    yield path
    for folder in path.glob("*/postgres"):
        postgres.stop(folder.parent, immediate=True)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def home(base: Path) -> Path:
    """A home with a row in its database, whose server is stopped; all faults share it."""
    server = postgres.start(base / "home")
    query(server, "CREATE TABLE kept AS SELECT 7 AS number")
    postgres.stop(base / "home")
    return base / "home"


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own; skips where none can be mounted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "none", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no tmpfs can be mounted here: that takes root")
    try:
        yield path
    finally:
        for folder in path.glob("*/postgres"):
            postgres.stop(folder.parent, immediate=True)
        subprocess.run(["umount", "-l", str(path)], check=True)
        path.rmdir()


@contextmanager
def few_processes(limit: int) -> Iterator[Callable[[Program], None]]:
    """Limits a program's processes and threads by a cgroup; skips where none can be made."""
    group = (PIDS or Path("/none")) / f"hpo-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "pids.max").write_text(str(limit))
    except OSError as error:
        pytest.skip(f"no pids cgroup can be made here: {error}")
    enter = f'echo $$ > {group}/cgroup.procs; exec "$0" "$@"'
    try:
        yield lambda *args, environment: subprocess.run(
            ["sh", "-c", enter, sys.executable, "-m", "hpo", *args],
            # numpy's and torch's libraries end a process that cannot have their threads.
            env={**environment, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=HANGS_S,
            check=False,
        )
    finally:
        group.rmdir()


def refuse(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    """The command was refused as every misconfiguration is: briefly, and with these words."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("hpo: ")]
    assert len(told) == 1 and len(done.stderr.splitlines()) <= (2 if code == 2 else 12)
    for word in words:
        assert word in told[0]


def other_version(home: Path) -> Callable[[], object]:
    file = home / "postgres/cluster/data/PG_VERSION"
    file.write_text("17\n")
    return lambda: file.write_text("18\n")


def other_host(home: Path) -> Callable[[], object]:
    file = home / "postgres/host"
    file.write_bytes(b"elsewhere \xff\n")  # not even text
    # A server in another container holds it.
    alive = pgfolder.hold(home / "postgres/alive")

    def gone() -> None:
        os.close(alive)
        file.unlink()

    return gone


def truncated_control(home: Path) -> Callable[[], object]:
    file = home / "postgres/cluster/data/global/pg_control"
    whole = file.read_bytes()
    os.truncate(file, 100)
    return lambda: file.write_bytes(whole)


def missing_map(home: Path) -> Callable[[], object]:
    """With it the server starts, restarts its processes for ever and lets nobody in."""
    file = home / "postgres/cluster/data/global/pg_filenode.map"
    aside = file.rename(home / "map")
    return lambda: aside.rename(file)


def missing_password(home: Path) -> Callable[[], object]:
    file = home / "postgres/password"
    aside = file.rename(home / "password")
    return lambda: aside.rename(file)


def foreign_data(home: Path) -> Callable[[], object]:
    data = home / "postgres/cluster/data"
    owner = data.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        pytest.skip("only root can give a folder away")
    os.chown(data, 0, 0)
    return lambda: os.chown(data, owner.st_uid, owner.st_gid)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (other_version, ["made by PostgreSQL 17, and this is 18", "HPO_HOME"]),
        (other_host, ["started on host 'elsewhere", "python -m hpo stop"]),
        (truncated_control, ["pg_control", "restore the folder"]),
        (missing_map, ["refuses connections", "pg_filenode.map", "restore the folder"]),
        (missing_password, ["password' is missing", "restore it"]),
        (foreign_data, ["ermission", "chown"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoilt_server_folder_is_told_in_a_line_and_opens_when_mended(home, fault, words):
    mend = fault(home)
    try:
        done = Program(None, home)("url")
        left = processes_in(home / "postgres")
    finally:
        mend()

    refuse(done, *words)
    assert left == set()
    server = postgres.start(home)
    assert query(server, "SELECT number FROM kept") == [(7,)]
    postgres.stop(home)


def test_a_port_file_that_says_nonsense_is_no_hindrance(home):
    (home / "postgres/port").write_text("999999\n")

    done = Program(None, home)("url")
    postgres.stop(home)

    assert done.returncode == 0, done.stderr
    assert 1024 <= int((home / "postgres/port").read_text()) < 65536


@pytest.mark.parametrize("command", ["url", "status", "stop"])
def test_a_home_that_is_a_file_is_refused_by_every_command(base, command):
    file = base / f"file-{command}"
    file.touch()

    refuse(Program(None, file)(command), "a file is where a folder is needed", "HPO_HOME")
    assert file.is_file()


def test_a_read_only_home_is_refused_until_it_can_be_written(base):
    with mounted(base / "fixed", "size=200m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refuse(Program(None, disk / "home")("url"), "Read-only file system", "mount it for writing")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)

        assert Program(None, disk / "home")("url").returncode == 0


def test_a_full_disk_is_told_at_the_first_start_and_in_a_study_and_nothing_is_lost(base):
    run = ("--objective", "quadratic", "--n_trials", "1", "--epochs_per_trial", "1")
    with mounted(base / "full", "size=1m") as disk:
        program = Program(None, disk / "home")
        refuse(program("url"), "No space left on device", "make room")
        subprocess.run(["mount", "-o", "remount,size=120m", str(disk)], check=True)
        assert program("url").returncode == 0

        subprocess.run(
            ["dd", "if=/dev/zero", f"of={disk / 'filling'}", "bs=1M"],
            capture_output=True,
            check=False,  # it ends where the disk does
        )
        refuse(program(*run, "--workers", "1"), "No space left on device", code=1)
        (disk / "filling").unlink()
        done = program(*run, "--workers", "1")

    assert done.returncode == 0, done.stderr
    assert "1 of 1 trials done" in done.stderr


def test_a_server_without_room_for_its_shared_memory_is_told_how_to_make_it():
    small = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/x"
    command = ["unshare", "--mount", "sh", "-c", f'{small} && exec "$0" "$@"']
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here: that takes root")
    # Not below /dev/shm, which will be covered.
    with mounted(Path(f"/tmp/hpo-test-{os.getpid()}"), "size=200m") as disk:
        program = Program(None, disk / "home")
        done = subprocess.run(
            [*command, sys.executable, "-m", "hpo", "url"],
            env=program.environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        again = program("url")

    refuse(done, "shared memory", "/dev/shm")
    assert again.returncode == 0, again.stderr


def test_where_no_process_is_left_the_server_and_a_run_say_so(home, url, tmp_path):
    run = ("--objective", "quadratic", "--n_trials", "1", "--workers", "1")
    with few_processes(4) as limited:
        refuse(limited("url", environment=Program(None, home).environment), "processes", "ulimit")
    assert Program(None, home)("url").returncode == 0
    postgres.stop(home)

    with few_processes(1) as limited:
        done = limited(*run, environment=Program(url, tmp_path / "home").environment)

    refuse(done, "a worker cannot be started", "the same command goes on", code=1)
