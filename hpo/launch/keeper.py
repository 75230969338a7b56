"""The keeper of a worker: it ends what the worker's processes left, once all of these have ended.

    python -I -S keeper.py MARK PID...    # the first PID leads the session, the last one trains

It serves the case in which whoever would end a trial's processes was killed itself. It imports the
standard library alone, to be small, and waits without polling. Linux only.
"""

# pathlib would take longer to import than all the rest.
# ruff: noqa: PTH123, PTH208

import os
import select
import signal
import sys
import time

# A trainer without its supervisor ends itself within 15 s; one that cannot is killed.
_ORPHAN_S = 25.0
# Descendants of a trainer are listed this often once its supervisor has gone.
_LOOK_S = 1.0
_SWEEPS = 50


def main(mark: str, *pids: str) -> None:
    """Wait for the end of the processes, and kill what is left of theirs."""
    session = int(pids[0])
    watched = {int(pid): opened(int(pid)) for pid in pids}
    known: dict[int, str] = {}
    deadline = None
    while alive := {pid: fd for pid, fd in watched.items() if fd is not None}:
        is_whole = len(alive) == len(watched)
        if not is_whole:
            deadline = deadline or time.monotonic() + _ORPHAN_S
            known.update(descendants(set(alive)))
            if time.monotonic() > deadline:
                kill(list(alive))
        ready, _, _ = select.select(list(alive.values()), [], [], None if is_whole else _LOOK_S)
        watched = {pid: None if fd in ready else fd for pid, fd in watched.items()}
    for _ in range(_SWEEPS):
        left = [pid for pid in everyone() if is_left(pid, session, mark, known)]
        if not left:
            return
        kill(left)
        time.sleep(0.02)


def opened(pid: int) -> int | None:
    """A descriptor that becomes readable at a process's end; None if it has ended."""
    try:
        return os.pidfd_open(pid)  # type: ignore[attr-defined, no-any-return, unused-ignore]
    except OSError:
        return None


def is_left(pid: int, session: int, mark: str, known: dict[int, str]) -> bool:
    """Return whether a process belongs to the ended ones, and has not ended itself."""
    if pid == os.getpid():
        return False
    state, _, started = stat(pid)
    if state in ("", "Z", "X"):
        return False
    if known.get(pid) == started:
        return True
    try:
        if os.getsid(pid) == session:
            return True
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{mark}=".encode() in file.read()
    except OSError:
        return False


def descendants(roots: set[int]) -> dict[int, str]:
    """The processes below some others, each with the time of its start."""
    parents = {pid: stat(pid) for pid in everyone()}
    found = set(roots)
    while more := {pid for pid, (_, above, _) in parents.items() if above in found} - found:
        found |= more
    return {pid: parents[pid][2] for pid in found - roots}


def stat(pid: int) -> tuple[str, int, str]:
    """State, parent and time of start of a process; an empty state if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "", 0, ""
    return fields[0], int(fields[1]), fields[19]


def everyone() -> list[int]:
    """All processes of this host."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def kill(pids: list[int]) -> None:
    """Kill some processes."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
