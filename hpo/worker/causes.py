"""Causes of a process's end: signals, memory that ran out, and the stacks that it left.

Border: reads what the system says; `supervisor` decides what it means for a trial.
"""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress
from pathlib import Path

# A process gets these for what it did itself.
CRASHES = (
    *(signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),
    *(signal.SIGTRAP, signal.SIGSYS),
)
# A large process that is out of memory takes some seconds to end.
_OOM_S = 10.0
_FRAME = re.compile(r'File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')


class OomKills:
    """The kernel's count of processes that it killed for memory, and its value some time ago."""

    def __init__(self) -> None:
        # What was killed long ago says nothing of a later signal.
        self._before = self._since = oom_kills()
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """Keep the count of 10 to 20 s ago."""
        if time.monotonic() - self._looked_at > _OOM_S:
            self._before, self._since = self._since, oom_kills()
            self._looked_at = time.monotonic()

    def have_risen(self) -> bool:
        """Return whether a process was killed for memory in that time."""
        return oom_kills() > self._before


def signal_name(number: int) -> str:
    """The name of a signal; a real-time one has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def innermost(dump: str) -> str | None:
    """The innermost frame of the main thread, which `faulthandler` writes last, in short."""
    main = re.split(r"^(?:Current thread|Thread) .*$", dump, flags=re.MULTILINE)[-1]
    found = _FRAME.search(main)
    if found is None:
        return None
    return f"{Path(found['file']).name} line {found['line']} in {found['name']}"


def is_stopped(pid: int) -> bool:
    """Return whether a process is suspended, by Ctrl-Z or SIGSTOP or a debugger."""
    with suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "Tt"
    return False


def oom_kills() -> int:
    """Number of processes that the kernel has killed for memory, in this control group or host."""
    for path in (_own_group() / "memory.events", Path("/proc/vmstat")):
        with suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _own_group() -> Path:
    """The folder of this process's control group (version 2)."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return Path("/sys/fs/cgroup") / line[3:].strip().lstrip("/")
    return Path("/sys/fs/cgroup")
