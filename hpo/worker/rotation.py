"""The rotation of a worker's log: past 16 MB it becomes `NAME.log.1`, and a new one is begun.

The worker's processes have the file as their standard output and error, so each has to turn to the
new one itself. Until it does, it writes to the old one, and no line is lost. Border: the log that a
run has opened for this worker. What a command wrote to a file is its own.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

# A day of a talkative trial is some MB; one old log is kept, so a slot has 32 MB at most.
_MOST_BYTES = 16 << 20
_OLD = ".log.1"
_STREAMS = (1, 2)

_is_ours = False


class Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Log to standard error, and rotate before a line."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        look()
        super().emit(record)


def begin() -> None:
    """Note that a run has opened the log of this process, and of those that are forked from it."""
    global _is_ours
    _is_ours = path() is not None


def path() -> Path | None:
    """The log of this process by its name of now; None if it is no file or is not a log."""
    try:
        if not stat.S_ISREG(os.fstat(2).st_mode):
            return None
        # The name of a file that was renamed meanwhile is the new one.
        found = str(Path("/proc/self/fd/2").readlink()).removesuffix(" (deleted)")
    except OSError:
        return None
    found = found.removesuffix(_OLD) + ".log" if found.endswith(_OLD) else found
    return Path(found) if found.endswith(".log") else None


def look() -> None:
    """Rotate the log if it is large, or follow another process that did; this takes 3 µs."""
    if not _is_ours:
        return
    # The old file stays in use where the new one cannot be made.
    with suppress(OSError):
        own = os.fstat(2)
        if own.st_nlink == 0:
            # Another process has rotated twice, or somebody has removed the log.
            _follow(own)
        elif own.st_size > _MOST_BYTES:
            _rotate(own)


def _rotate(own: os.stat_result) -> None:
    log = path()
    if log is None:
        return
    # The trainer and the process above it may look at the same time.
    lock = os.open(log, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.samestat(log.stat(), own):
            log.replace(log.with_name(log.name.removesuffix(".log") + _OLD))
    finally:
        os.close(lock)
    _follow(own)


def _follow(own: os.stat_result) -> None:
    """Turn the streams that write to the old file to the new one."""
    log = path()
    if log is None:
        return
    new = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        for stream in _STREAMS:
            if os.path.samestat(os.fstat(stream), own):
                os.dup2(new, stream)
    finally:
        os.close(new)
