"""The keeper of a worker: it ends what the worker's processes left, once all of these have ended.

    python -I -S keeper.py NAME=VALUE PID    # of a process that leads a session

The lines of its standard input are pids of trainers: the last one has some time to save its state
when the first process has ended.

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


def main(mark: str, pid: str) -> None:
    """Wait for the end of a process and of its trainer, and kill what is left of theirs."""
    session = int(pid)
    trainer = wait(session)
    known = {} if trainer is None else wait_for_trainer(trainer)
    for _ in range(_SWEEPS):
        left = [pid for pid in everyone() if is_left(pid, session, mark, known)]
        if not left:
            return
        kill(left)
        time.sleep(0.02)


def wait(pid: int) -> int | None:
    """Wait for the end of a process; return the last trainer that was named, None without one."""
    ended, heard, text = opened(pid), [0], b""
    while ended is not None:
        ready, _, _ = select.select([ended, *heard], [], [])
        if 0 in ready:
            said = os.read(0, 4096)
            text = (text + said)[-64:]
            # The input ends with the process, or before it if there is no trainer to name.
            heard = [0] if said else []
        elif ended in ready:
            ended = None
    named = text.split()
    return int(named[-1]) if named else None


def wait_for_trainer(trainer: int) -> dict[int, str]:
    """Wait for a trainer's end, or kill it after its time; return its descendants up to then."""
    known: dict[int, str] = {}
    ended, deadline = opened(trainer), time.monotonic() + _ORPHAN_S
    while ended is not None:
        known.update(descendants({trainer}))
        if time.monotonic() > deadline:
            kill([trainer])
        ready, _, _ = select.select([ended], [], [], _LOOK_S)
        ended = None if ready else ended
    return known


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
    # The keeper comes first. An older process is of a script that has executed the worker.
    if state in ("", "Z", "X") or int(started) < int(stat(os.getpid())[2]):
        return False
    if known.get(pid) == started:
        return True
    try:
        if os.getsid(pid) == session:
            return True
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark.encode() in file.read()
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
