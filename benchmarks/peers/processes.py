"""Processes of the peers: their environment, their CPU time and memory, their end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def environment(**own: str) -> dict[str, str]:
    """The environment of a command that finds this checkout, and no settings of the caller."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HPO_")}
    return {
        **kept,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}",
        "PYTHONWARNINGS": "ignore",
        # Bare Optuna stores local times.
        "TZ": "UTC",
        **own,
    }


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all below it that live."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def tree_cpu_s(root: psutil.Process) -> float:
    """CPU seconds of a process and of all that it has started, those that ended included."""
    found = 0.0
    for process in tree(root):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found += times.user + times.system + times.children_user + times.children_system
    return found


def end_cleanly() -> None:
    """Have SIGTERM end this process as an error does: servers and workers are stopped first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def busy_s() -> float:
    """CPU seconds that all processes of this machine have taken so far."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


def largest_mb(roots: Iterable[psutil.Process]) -> float:
    """Resident memory of the largest process below some."""
    sizes = [0]
    for process in (one for root in roots for one in tree(root)):
        with suppress(psutil.NoSuchProcess):
            sizes.append(process.memory_info().rss)
    return max(sizes) / 1e6


def kill(roots: Iterable[psutil.Process]) -> None:
    """End processes and all below them at once."""
    for process in [one for root in roots for one in tree(root)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
