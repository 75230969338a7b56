"""The postmaster: which process it is, and how it is launched.

A pid file outlives its process, and the number may pass to somebody else's: no process is taken for
ours here unless its command line says so. Waiting, locking and stopping are in `postgres`.
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
# pg_ctl alone may wait in vain for a server that restarts its processes for ever; after this our
# caller waits on, and hears from the server itself why it lets nobody in.
_READY_S = 10.0


def postmaster(data: Path) -> int | None:
    """The living process that serves this very folder: its pid may have passed to another."""
    pid = (read(data / "postmaster.pid") or "").split("\n")[0]
    if not pid.isdecimal():
        return None
    program, _, arguments = (_command(int(pid)) or "").partition(" -D ")
    ours = program.endswith("postgres") and f"{arguments} ".startswith(f"{data} ")
    return int(pid) if ours else None


def launch(folder: Folder, guard: int) -> None:
    """Start PostgreSQL on a data folder that, as the guard proves, no process of ours uses."""
    account = settle(folder)
    programs = binaries.programs(account)
    if not folder.data.exists():
        initialise(folder, programs, account, guard=guard)
    check(folder)
    _drop_stale_pid(folder.data)
    folder.claim_host()
    log = os.open(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        for _ in range(3):  # another program may take the port between our look and PostgreSQL's
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
    """Remove a pid file whose number is somebody else's by now, or of a process ended unreaped.

    PostgreSQL itself removes one whose process is gone, and looks for leftover backends first.
    """
    path = data / "postmaster.pid"
    pid = (read(path) or "").split("\n")[0]
    command = _command(int(pid)) if pid.isdecimal() else ""
    if path.exists() and command is not None:
        if command:
            logger.warning("embedded server | removed '%s': process %s is not ours", path, pid)
        path.unlink()


def _chosen_port(folder: Folder) -> int:
    """The port of last time, so that stored URLs keep working; another if it has been taken."""
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
        # As PostgreSQL does, else connections of a minute ago (TIME_WAIT) would move the server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _command(pid: int) -> str | None:
    """A process's command line; empty for one that has ended unreaped, None where none lives."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.ZombieProcess:
        return ""
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # it is another account's
        return "?"
