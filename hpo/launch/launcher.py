"""The interface of a launcher: start a process, wait for its end, stop it.

A launcher reaches a process by a command line and an environment, never by an import. One for jobs
also writes lines to the process's standard input, and reads those of its standard output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

# Exit code of a worker that the trial in it ended: it crashed, hung or left.
LOST = 3


class Launched(Protocol):
    """A started process, on this host or another."""

    @property
    def began_at(self) -> float | None:
        """Monotonic time at which it began; None while its engine has no place for it."""

    @property
    def pid(self) -> int | None:
        """Its process id on this host; None for a process elsewhere."""

    def poll(self) -> int | None:
        """Return its exit code; None while it runs or some of its lines are not yet read."""

    def stop(self) -> None:
        """Ask it to save its state and end."""

    def wait(self) -> int:
        """Wait for its end; return its exit code."""

    def kill(self) -> None:
        """Kill it immediately."""


class Job(Launched, Protocol):
    """A started process that reads lines."""

    def answer(self, line: str, *, is_last: bool = True) -> None:
        """Write a line to its standard input.

        The last one closes it. From then on SIGTERM stops it, as any other process.
        """


class Launcher(Protocol):
    """A way to start processes, on this host or another."""

    @property
    def program(self) -> Sequence[str]:
        """The first words of this program's command line where the processes run."""

    @property
    def tether(self) -> Sequence[str]:
        """Flags by which a worker ends with the process that started it."""

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
    ) -> Launched:
        """Start a command that SIGTERM stops.

        Args:
            environment: Variables added to the launcher's own.
            log: File to which its output is appended.
        """

    def close(self) -> None:
        """Leave the engine; processes that still run are ended."""


class JobLauncher(Launcher, Protocol):
    """A launcher on this host, whose processes can be talked to."""

    def start_job(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        job: str,
        on_line: Callable[[str], None],
    ) -> Job:
        """Start a command with a job.

        Args:
            environment: Variables added to the launcher's own.
            log: File to which its standard error is appended.
            job: One line for its standard input, which stays open. Closing it asks the process to
                stop, and happens also if this process is killed.
            on_line: Called from a thread with each line of its standard output.
        """
