"""Checks of the machine: home folder, disk, shared memory, processes, files, memory, cores.

Border: only reads, but for one unnamed file in the home folder and one process that ends at once.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import psutil

from hpo.doctor.finding import Finding, failed, ok, warning
from hpo.embedded.cures import ELSEWHERE, cure
from hpo.embedded.folder import Folder
from hpo.machine.slots import free_memory, usable_cores

_MB = 1_000_000
# A new database is 45 MB with its log; the log grows to 1 GB under load (max_wal_size).
_LEAST_DISK, _GOOD_DISK = 200 * _MB, 1000 * _MB
_LEAST_FILES = 2000  # a database has 1,000 files
_LEAST_SHM = 64 * _MB
# PostgreSQL starts with 12 processes and takes one a connection; a worker has 4 threads.
_SERVER_TASKS, _WORKER_TASKS = 15, 7
_LEAST_OPEN_FILES = 256
_LEAST_MEMORY = 1 << 30  # a worker takes up to 1 GB
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs")
_MORE_TASKS = "end other programs, or allow more ('ulimit -u'; a container's: --pids-limit)"


def checks(home: Path) -> Mapping[str, Callable[[], Iterator[Finding]]]:
    """The checks by name, in order."""
    return {
        "home": partial(_home, home),
        "disk": partial(_disk, home),
        "shared memory": _shared_memory,
        "processes": _processes,
        "open files": _open_files,
        "workers": _workers,
    }


def _home(home: Path) -> Iterator[Finding]:
    """Check that the home folder is writable and has file locks; name its owner."""
    Folder.of(home)  # it raises for names that PostgreSQL cannot take
    there = _existing(home)
    owner = there.stat().st_uid
    place = "" if there == home else f" (not made yet), in '{there}'"
    whose = f"'{home}'{place} of {_name(owner)}"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"hpo")
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        reason = str(error.strerror)
        yield failed("home", f"{whose} cannot be written or locked: {reason}", cure(reason))
        return
    kind = _file_system(there)
    if kind in _NETWORK:
        local = "keep HPO_HOME on a local disk: PostgreSQL is at risk when the network fails"
        yield warning("home", f"{whose}, on {kind}", local)
    else:
        yield ok("home", f"{whose}, writable, with file locks, on {kind}")


def _disk(home: Path) -> Iterator[Finding]:
    """Check the room at home, and where root's PostgreSQL account keeps the data elsewhere."""
    if not _existing(home).is_dir():
        return  # the check of the home folder has reported it
    folders = {path.stat().st_dev: path for path in map(_existing, (Folder.of(home).cluster, home))}
    for folder in reversed(folders.values()):
        disk, files = psutil.disk_usage(os.fspath(folder)), os.statvfs(folder)
        found = f"{_size(disk.free)} free of {_size(disk.total)} in '{folder}'"
        room = f"make room ('du -xsh {folder}/*' shows what takes it), or {ELSEWHERE}"
        # psutil counts no files. A file system without a fixed number of them reports 0 of 0.
        if files.f_files and files.f_favail < _LEAST_FILES:
            yield failed("disk", f"room for {files.f_favail} more files in '{folder}'", room)
        elif disk.free < _LEAST_DISK:
            yield failed("disk", f"{found}, and {_size(_LEAST_DISK)} are needed", room)
        elif disk.free < _GOOD_DISK:
            yield warning("disk", found, room)
        else:
            yield ok("disk", found)


def _shared_memory() -> Iterator[Finding]:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield ok("shared memory", "no /dev/shm on this system")
        return
    disk = psutil.disk_usage(os.fspath(memory))
    found = f"/dev/shm has {_size(disk.free)} free of {_size(disk.total)}"
    if disk.free < _MB:  # PostgreSQL needs 50 kB to start
        yield failed("shared memory", found, cure("shared memory"))
    elif disk.total < _LEAST_SHM or disk.free < _LEAST_SHM // 4:
        yield warning("shared memory", found, cure("shared memory"))
    else:
        yield ok("shared memory", found)


def _processes() -> Iterator[Finding]:
    begin = time.perf_counter()
    try:
        subprocess.run([sys.executable, "-S", "-c", ""], check=True, capture_output=True)
    except OSError as error:
        yield failed("processes", f"none can be started: {error.strerror}", _MORE_TASKS)
        return
    took_ms = 1000 * (time.perf_counter() - begin)
    found = f"one started and ended within {took_ms:.0f} ms"
    left = {who: room for who, room in (_of_user(), _of_cgroup()) if room is not None}
    if not left:
        yield ok("processes", f"{found}, no limit")
        return
    who, room = min(left.items(), key=lambda item: item[1])
    found += f", room for {room} more ({who})"
    needed = _SERVER_TASKS + _WORKER_TASKS * usable_cores()
    if room < needed:
        found += f", and the server with {usable_cores()} workers takes about {needed}"
        yield warning("processes", found, f"{_MORE_TASKS}, or write a smaller --workers")
    else:
        yield ok("processes", found)


def _open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _LEAST_OPEN_FILES:
        raised = f"ulimit -n {min(1024, hard)}"
        if hard < _LEAST_OPEN_FILES:
            raised = "raise the hard limit (limits.conf; a container's: --ulimit nofile=1024)"
        yield warning("open files", f"{soft} at most", raised)
    else:
        yield ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"{soft} at most")


def _workers() -> Iterator[Finding]:
    cores = usable_cores()
    found = f"{cores} on the CPU by default ('run --workers auto': cores, quota and memory)"
    free = free_memory()
    if free is not None:
        found += f", {_size(free)} of memory free"
    if free is not None and free < _LEAST_MEMORY:
        yield warning("workers", found, "end other programs: a worker takes up to 1 GB")
    else:
        yield ok("workers", found)


def _of_user() -> tuple[str, int | None]:
    """The number of tasks that the user's limit still allows; root has no limit."""
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:
        return "ulimit -u", None
    used = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        uids, threads = process.info["uids"], process.info["num_threads"]
        # Both are None for a process that this user may not inspect.
        if uids is not None and uids.effective == os.geteuid():
            used += threads or 0
    return "ulimit -u", limit - used


def _of_cgroup() -> tuple[str, int | None]:
    """The number of tasks that this process's cgroup and those above it (v1, v2) still allow."""
    left = []
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "pids"):
            continue
        root = Path("/sys/fs/cgroup") / controllers
        group = root / path.lstrip("/")
        for level in (group, *group.parents):
            limit = _text(level / "pids.max").strip()
            if limit.isdecimal():
                left.append(int(limit) - int(_text(level / "pids.current") or 0))
            if level == root:
                break
    return "cgroup pids.max", min(left, default=None)


def _existing(folder: Path) -> Path:
    """The folder, or its nearest ancestor that exists."""
    folder = folder.absolute()
    return next(level for level in (folder, *folder.parents) if os.path.lexists(level))


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder."""
    at = folder.resolve()
    above = [
        (len(mount.mountpoint), number, mount.fstype)
        for number, mount in enumerate(psutil.disk_partitions(all=True))
        if at.is_relative_to(mount.mountpoint)
    ]
    return max(above, default=(0, 0, "an unknown file system"))[2]


def _name(uid: int) -> str:
    try:
        return f"'{pwd.getpwuid(uid).pw_name}'"
    except KeyError:
        return f"uid {uid}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
