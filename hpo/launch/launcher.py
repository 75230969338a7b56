"""The interface of a launcher: start a process on a slot, hear from it, end it.

A launcher and a process are joined by a command line, an environment, a job on standard input and
lines on standard output, never by an import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Launched(Protocol):
    """A process somewhere."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs, or while lines of it are still to be heard."""

    def stop(self) -> None:
        """Ask it to keep what it has and end."""

    def wait(self) -> int:
        """Wait for its end and return its exit code."""

    def kill(self) -> None:
        """End it at once."""


class Launcher(Protocol):
    """Starts processes."""

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        job: str | None = None,
        hear: Callable[[str], None] | None = None,
    ) -> Launched:
        """Start a command.

        Args:
            environment: Added to the launcher's own.
            log: Where its output is appended.
            job: One line for its standard input, which stays open: its end asks the process to
                stop, also where this one is killed. None for a process that SIGTERM stops.
            hear: Called, from a thread, with each line of its standard output, which then does not
                go to the log.
        """
