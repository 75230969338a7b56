"""Where a worker process runs: the interface that every launcher has.

A launcher and a worker are joined by a command line and an environment, never by an import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Launched(Protocol):
    """A worker process somewhere."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def stop(self) -> None:
        """Ask it to give its ticket back and end."""

    def wait(self) -> None:
        """Wait for its end."""

    def kill(self) -> None:
        """End it at once."""


class Launcher(Protocol):
    """Starts workers."""

    def start(self, argv: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Launched:
        """Start a command; `environment` is added to the surroundings, output goes to `log`."""
