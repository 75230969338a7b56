"""The embedded server's files in the home folder: names, small files, locks.

    home/postgres/
        lock         held (flock) by the command that is starting or stopping the server
        alive        held (flock) by every process of the server: the kernel itself knows whether
                     one is left, unlike a pid file or another container's process table
        password     of the role 'hpo', readable by the caller only
        superuser    the password of the role 'postgres', which no program of ours uses
        port, host   the last port; the machine that the server runs on, gone after a clean stop
        place        the path of root's account's data, if it cannot reach this folder
        server.log
        cluster/     owned by the account that PostgreSQL runs as
            data/    PostgreSQL's own

Border: nothing here knows a process or a program. `cluster` makes the cluster, `server` starts and
stops it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpo.embedded.filesystem import is_local
from hpo.errors import ConfigurationError, PostgresError
from hpo.files import renamed

LOCK_WAIT_S = 300.0  # this exceeds the longest start of the lock's holder (postmaster.START_S)
LOG_BYTES = 8_000_000  # this holds some 50,000 errors of workers; there are two files at most
MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True)
class Folder:
    """The embedded server's folder below a home; it may not exist yet."""

    root: Path

    @classmethod
    def of(cls, home: Path) -> Folder:
        root = home.absolute().resolve() / "postgres"
        if set(str(root)) & set('"$`\\\n'):  # pg_ctl hands the path to a shell, in double quotes
            raise ConfigurationError(
                f"home folder '{home}' has a '\"', '$', '`', '\\' or a line break in its path, "
                "which PostgreSQL cannot take; write another one in HPO_HOME"
            )
        return cls(root)

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def alive(self) -> Path:
        return self.root / "alive"

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def host(self) -> Path:
        return self.root / "host"

    @property
    def cluster(self) -> Path:
        return Path(read(self.root / "place") or self.root / "cluster")

    @property
    def data(self) -> Path:
        return self.cluster / "data"

    def create(self) -> None:
        """Make the folder; refuse one that belongs to another user."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.root.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            if os.geteuid() == 0:
                self.root.chmod(0o711)  # the account traverses it; each file has its own mode
        owner = self.root.stat().st_uid
        if owner != os.geteuid():
            raise PostgresError(
                f"'{self.root}' belongs to uid {owner}, and you are uid {os.geteuid()}; run as "
                "that user, or write another home folder in HPO_HOME"
            )

    @property
    def superuser(self) -> Path:
        return self.root / "superuser"

    def password(self) -> str | None:
        return read(self.root / "password")

    def port(self) -> int | None:
        """The last port; None unless the file has one that is not privileged."""
        stored = read(self.root / "port") or ""
        return int(stored) if stored.isdecimal() and 1024 <= int(stored) < 65536 else None

    def keep_port(self, port: int) -> None:
        write(self.root / "port", str(port))

    def refuse_other_host(self) -> None:
        """Refuse if the server may run on another host: two servers corrupt one folder.

        A container that was started anew has another name. On a local file system the lock tells
        whether the one before still runs; on another the host may be a machine of its own.
        """
        owner = read(self.host)
        if owner is None or owner == _this_host():
            return
        if is_held(self.alive) or not is_local(self.root):
            raise PostgresError(
                f"the embedded server in '{self.root}' was started on host '{owner}', and this is "
                f"'{_this_host()}' (name, machine id); write 'python -m hpo stop' there, or, if "
                f"that host is gone, delete '{self.host}'"
            )

    def claim_host(self) -> None:
        write(self.host, _this_host())

    def trim_log(self) -> None:
        """Copy a long log and empty it. The server appends, so it continues at the start."""
        if self.log_is_long():
            shutil.copyfile(self.log, self.root / "server.log.1")
            os.truncate(self.log, 0)

    def log_is_long(self) -> bool:
        return self.log.exists() and self.log.stat().st_size > LOG_BYTES


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; other processes wait for it, up to `LOCK_WAIT_S`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _flock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise PostgresError(
                    f"another command has held '{path}' for {LOCK_WAIT_S:.0f} s; end it and run "
                    "again"
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def hold(path: Path) -> int | None:
    """Take a file's lock; return its descriptor, or None if another process holds it.

    Every process that inherits the descriptor holds the lock, too.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if _flock(descriptor, fcntl.LOCK_EX):
        return descriptor
    os.close(descriptor)
    return None


def is_held(path: Path) -> bool:
    """Return whether a process holds the file's lock; simultaneous calls do not interfere."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def read(path: Path) -> str | None:
    """The text of a small file; None if it is missing or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except FileNotFoundError:
        return None


def write(path: Path, text: str) -> None:
    """Write a small file, whole or not at all, readable by the caller only."""
    with renamed(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make a folder's latest names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise PostgresError(
            f"the home folder's file system has no file locks ({error.strerror}); write a folder "
            "on a local disk in HPO_HOME"
        ) from error
    return True


def _this_host() -> str:
    """Identifier of this machine among those that see the same folder.

    It has both names: containers often lack a machine id, and diskless nodes share one.
    """
    return f"{socket.gethostname() or 'unnamed'} {read(MACHINE_ID) or '-'}"
