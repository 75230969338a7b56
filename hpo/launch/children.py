"""The processes that this process started, and theirs: find them, orphans included, and end them.

On Linux an orphan goes to its nearest ancestor that asked for it (a subreaper), so that none is
lost. A keeper, a small process apart from all others, ends what is left when even the process that
would do it was killed. Elsewhere an orphan is found by its session or its mark alone.

Border: this host. `local` ends the processes that it started, `keeper` those of dead ones.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from hpo.errors import HpoError

# The variable of the environment that a launched process and its descendants have in common.
MARK = "HPO_PROCESS"
_IS_LINUX = sys.platform == "linux"
_PR_SET_CHILD_SUBREAPER = 36
# A killed process is gone within milliseconds, unless it waits for a disk.
_KILLED_S = 3.0
_POLL_S = 0.01
# Python and torch start these once a process, for all trials. They hold no work between two.
_SERVICES = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
_COMPILER = "_inductor/compile_worker"
# A process whose parent was killed has this long to save its state.
ABANDONED_S = 30.0


def new_mark() -> str:
    """A new value of the variable `MARK`, by which the descendants of a process are found."""
    return secrets.token_hex(8)


def set_mark(*, is_launched: bool = True) -> str:
    """Mark all that this process starts, unless its launcher has; return the mark.

    Without a launcher a mark in the environment is another process's, whose own would be ended.
    """
    if not is_launched:
        os.environ.pop(MARK, None)
    return os.environ.setdefault(MARK, new_mark())


def take_charge() -> None:
    """Have all that this process starts end with it, whatever ends it."""
    said = keep(set_mark())
    if said is not None:
        os.close(said)
    adopt_orphans()


def adopt_orphans(is_on: bool = True) -> None:
    """Become the parent of each descendant whose own parent ends, or do so no longer."""
    if _IS_LINUX:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0)


def living() -> set[psutil.Process]:
    """All descendants of this process that have not ended."""
    if not _has_children():
        return set()
    return {process for process in below(os.getpid()) if _lives(process)}


@contextmanager
def ended() -> Iterator[None]:
    """End what the block has started, orphans included."""
    adopt_orphans()
    earlier = living()
    try:
        yield
    finally:
        end(earlier=trees(earlier))
        # Later orphans are not ours, and nobody here would reap them.
        adopt_orphans(False)


def below(pid: int) -> list[psutil.Process]:
    """All descendants of a process."""
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def trees(processes: Collection[psutil.Process]) -> set[psutil.Process]:
    """Some processes with all their descendants."""
    return {one for process in processes for one in _tree(process)}


def _has_children() -> bool:
    """Return whether there may be children; on Linux by one small file for each thread."""
    try:
        files = list(Path("/proc/self/task").glob("*/children"))
        return not files or any(file.read_text().strip() for file in files)
    except OSError:
        return True


def end(*, earlier: Collection[psutil.Process] = (), spare_services: bool = False) -> int:
    """Kill all descendants, and those that these start meanwhile; return how many there were.

    Args:
        earlier: Descendants to leave.
        spare_services: Leave the processes that Python and torch start once for all trials.
    """
    ended: set[psutil.Process] = set()
    deadline = time.monotonic() + _KILLED_S
    with _unheard():
        while victims := _victims(set(earlier), spare_services=spare_services):
            for process in victims:
                with suppress(psutil.Error):
                    process.kill()
            ended |= victims
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        _reap(ended)
    return len(ended)


def _victims(earlier: set[psutil.Process], *, spare_services: bool) -> set[psutil.Process]:
    found = living() - earlier
    if not found:
        return found
    spared = _tree(_embedded_server())
    if spare_services:
        for process in found:
            line = _command(process)
            # The children of a fork server have its command line, and are the trial's own.
            if _COMPILER in line:
                spared |= _tree(process)
            elif any(name in line for name in _SERVICES) and _is_own(process):
                spared.add(process)
    return found - spared


def _is_own(process: psutil.Process) -> bool:
    """Return whether a process is a child of this one."""
    with suppress(psutil.Error):
        return bool(process.ppid() == os.getpid())
    return False


def _embedded_server() -> psutil.Process | None:
    """The embedded PostgreSQL server, which a worker may have started and which outlives it."""
    # A process that has nothing to end need not load these.
    from hpo.embedded.folder import Folder
    from hpo.embedded.postmaster import postmaster
    from hpo.environ import home

    with suppress(HpoError, OSError, psutil.Error):
        pid = postmaster(Folder.of(home()).data)
        return None if pid is None else psutil.Process(pid)
    return None


def _tree(process: psutil.Process | None) -> set[psutil.Process]:
    if process is None:
        return set()
    return {process, *below(process.pid)}


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep SIGCHLD from Python handlers: torch's raises for each loader process that was killed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        # None is a handler that was not installed from Python.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def _reap(ended: Collection[psutil.Process]) -> None:
    """Take the exit codes of ended processes, so that none remains as a zombie."""
    left, deadline = {process.pid for process in ended}, time.monotonic() + _KILLED_S
    multiprocessing = sys.modules.get("multiprocessing")
    while left and time.monotonic() < deadline:
        # Its own would count as running for ever if their exit codes were taken here.
        alive = [] if multiprocessing is None else multiprocessing.active_children()
        for pid in left - {process.pid for process in alive}:
            try:
                is_taken = os.waitpid(pid, os.WNOHANG)[0] == pid
            except OSError:
                is_taken = True
            if is_taken:
                left.discard(pid)
        if left:
            # A zombie whose threads still end has no exit code yet.
            time.sleep(_POLL_S)


def marked(mark: str, *, session: int) -> list[int]:
    """Living processes of a session or with a mark in their environment, except its leader."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for pid in psutil.pids():
        if pid in (session, os.getpid()):
            continue
        with suppress(OSError, psutil.Error):
            is_theirs = os.getsid(pid) == session or wanted in _environment(pid)
            if is_theirs and _lives(psutil.Process(pid)):
                found.append(pid)
    return found


def _environment(pid: int) -> bytes:
    if _IS_LINUX:
        return Path(f"/proc/{pid}/environ").read_bytes()
    pairs = psutil.Process(pid).environ().items()
    return b"\0".join(f"{name}={value}".encode() for name, value in pairs)


def keep(mark: str) -> int | None:
    """Start the keeper of this process: when this has ended, it ends what is left.

    It is no child of this process, has a session of its own, and an empty environment.

    Returns:
        A descriptor to which the pid of each trainer is written, a line each; None without a
        keeper.
    """
    if not (_IS_LINUX and sys.executable and hasattr(os, "pidfd_open")):
        return None
    script = str(Path(__file__).with_name("keeper.py"))
    argv = [sys.executable, "-I", "-S", script, f"{MARK}={mark}", str(os.getpid())]
    heard, said = os.pipe()
    middle = os.fork()
    if middle == 0:
        # Only system calls from here on, and no way back into the code above.
        try:
            os.setsid()
            if os.fork() == 0:
                os.dup2(heard, 0)
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, 1)
                os.dup2(nothing, 2)
                os.chdir("/")
                os.execve(argv[0], argv, {})
        finally:
            os._exit(0)
    os.waitpid(middle, 0)
    os.close(heard)
    return said
