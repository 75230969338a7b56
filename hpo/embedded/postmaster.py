"""The postmaster, PostgreSQL's main process: its identification and its launch.

A pid file outlives its process, and its pid may pass to another program. So a process counts as
ours only if its command line says so. Border: waiting, locking and stopping are in `server`.
"""

from __future__ import annotations

import logging
import os
import random
import socket
from pathlib import Path

import psutil

from hpo.embedded import binaries
from hpo.embedded.cluster import check, initialise, settle
from hpo.embedded.cures import cure, telling_line
from hpo.embedded.folder import Folder, read
from hpo.errors import PostgresError

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
PORTS = range(15432, 32768)  # below every system's ephemeral ports, so that a kept port stays free
START_S = 180.0  # recovery replays 1 GB of log at most (max_wal_size), on a slow disk
# pg_ctl would wait in vain for a server that restarts its processes for ever. After this time
# `server` continues the wait, and reads the reason from the server's refusals.
_READY_S = 10.0


def postmaster(data: Path) -> int | None:
    """The pid of the living process that serves this folder; None if there is none."""
    pid = (read(data / "postmaster.pid") or "").split("\n")[0]
    if not pid.isdecimal():
        return None
    program, _, arguments = (_command(int(pid)) or "").partition(" -D ")
    ours = program.endswith("postgres") and f"{arguments} ".startswith(f"{data} ")
    return int(pid) if ours else None


def launch(folder: Folder, guard: int) -> None:
    """Start PostgreSQL on a data folder that no process of ours uses.

    Args:
        guard: A descriptor that holds the lock of `alive`, which proves this.
    """
    account = settle(folder)
    programs = binaries.programs(account)
    if not folder.data.exists():
        initialise(folder, programs, account, guard=guard)
    check(folder)
    _drop_stale_pid(folder.data)
    folder.claim_host()
    log = os.open(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        for _ in range(3):  # another program may take the port between our test and PostgreSQL's
            begin = os.fstat(log).st_size
            port = _chosen_port(folder)
            command = (programs / "pg_ctl", "start", "--silent", "--wait")
            options = (
                f"--timeout={_READY_S:.0f}",
                f"--pgdata={folder.data}",
                f"--options=-p {port}",
            )
            done = binaries.run((*command, *options), account=account, output=log, keep=[guard])
            if done.returncode == 0 or postmaster(folder.data) is not None:
                return
            said = folder.log.read_bytes()[begin:].decode("utf-8", "replace")
            if "could not create any TCP/IP sockets" not in said:
                break
    finally:
        os.close(log)
    folder.host.unlink(missing_ok=True)
    reason = telling_line(said)
    raise PostgresError(
        f"PostgreSQL does not start on '{folder.data}': '{reason}'; {cure(reason)}; nothing was "
        f"changed, more is in '{folder.log}'"
    )


def _drop_stale_pid(data: Path) -> None:
    """Remove a pid file whose pid belongs to another program by now, or to a zombie.

    If no process has the pid, PostgreSQL itself removes the file, after a check for leftover
    backends.
    """
    path = data / "postmaster.pid"
    pid = (read(path) or "").split("\n")[0]
    command = _command(int(pid)) if pid.isdecimal() else ""
    if path.exists() and command is not None:
        if command:
            logger.warning("embedded server | removed '%s': process %s is not ours", path, pid)
        path.unlink()


def _chosen_port(folder: Folder) -> int:
    """The last port, so that stored URLs keep working; another one if it is taken."""
    kept = folder.port()
    if kept is not None and _is_free(kept):
        return kept
    while not _is_free(port := random.SystemRandom().choice(PORTS)):
        pass
    folder.keep_port(port)
    if kept is not None:
        message = "embedded server | another program has port %d; moved to %d: update stored URLs"
        logger.warning(message, kept, port)
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # PostgreSQL sets it, too; without it, connections closed within the last minute (TIME_WAIT)
        # would move the server to another port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _command(pid: int) -> str | None:
    """A process's command line; empty for a zombie, None if there is no such process."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.ZombieProcess:
        return ""
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # it is another account's
        return "?"
