"""Waiting for a condition, and the processes below one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], *, timeout_s: float = 300.0) -> None:
    """Wait for a condition; the bound only ends a test that hangs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    direct = [int(line) for line in found.stdout.split()]
    return [*direct, *(grandchild for child in direct for grandchild in children(child))]


def kill_all(pid: int) -> None:
    """kill -9 of a process and everything below it."""
    for victim in [*children(pid), pid]:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
