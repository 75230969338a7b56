"""Figures of finished repetitions in a file, lines of progress, and cells of a table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.processes import ROOT


class Kept:
    """The figures of finished repetitions, in a file if one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        is_there = path is not None and path.exists()
        self.all: list[dict[str, Any]] = json.loads(path.read_text()) if path and is_there else []

    def find(self, **key: Any) -> dict[str, Any] | None:
        """The repetition with this key, if it is done."""
        return next((one for one in self.all if key.items() <= one.items()), None)

    def add(self, found: dict[str, Any]) -> None:
        self.all.append(found)
        if self._path is not None:
            self._path.write_text(json.dumps(self.all, indent=1) + "\n")


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.strftime('%T')} {text}", file=sys.stderr, flush=True)


def described() -> str:
    """The checkout's commit."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, smallest and largest of some figures."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
