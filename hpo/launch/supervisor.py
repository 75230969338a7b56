"""Supervise the named processes of one run: start on slots, collect messages, stop within a grace.

Border: `hpo.fleet` and `hpo.refit` decide which process starts next and what an end means.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.launch.launcher import JobLauncher, Launched, Launcher
from hpo.machine.slots import Slot

# This is short compared with the half second between two redraws of the terminal.
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process on a slot.

    Attributes:
        started_at: Time of its start by the monotonic clock, in s.
    """

    name: str
    slot: Slot
    log: Path
    started_at: float
    launched: Launched

    @property
    def lived_s(self) -> float:
        """Seconds since it began, without the time for which it waited for a place."""
        began_at = self.launched.began_at
        return 0.0 if began_at is None else time.monotonic() - began_at

    def last_line(self) -> str:
        """The last non-empty line of its log, or of the one before; empty without one."""
        for log in (self.log, self.log.with_name(f"{self.log.name}.1")):
            with suppress(OSError):
                lines = log.read_text(errors="replace").splitlines()
                last = next((line.strip() for line in reversed(lines) if line.strip()), "")
                if last:
                    return last
        return ""


@dataclass(frozen=True, kw_only=True)
class News:
    """New messages with their process's name, in order; ended processes with their exit code."""

    messages: Sequence[tuple[str, Mapping[str, Any]]]
    ended: Sequence[tuple[Process, int]]


class Supervisor:
    """The processes of one run.

    Attributes:
        running: The processes not yet reported as ended, by name.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._messages: queue.SimpleQueue[tuple[str, Mapping[str, Any]]] = queue.SimpleQueue()
        self.running: dict[str, Process] = {}

    def start(
        self,
        name: str,
        slot: Slot,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process."""
        launched = self._launcher.start(
            argv, environment={**(environment or {}), **dict(slot.environment)}, log=log
        )
        self._note(name, slot, log, launched)

    def _note(self, name: str, slot: Slot, log: Path, launched: Launched) -> None:
        self.running[name] = Process(
            name=name, slot=slot, log=log, started_at=time.monotonic(), launched=launched
        )

    def adopt(self, process: Process) -> None:
        """Take over a process that was started before."""
        self.running[process.name] = process

    @property
    def is_idle(self) -> bool:
        """True if all started processes have ended."""
        return all(process.launched.poll() is not None for process in self.running.values())

    @property
    def waiting(self) -> Sequence[Process]:
        """The processes for which their engine has no place yet."""
        running = self.running.values()
        return [one for one in running if one.launched.began_at is None]

    def withdraw(self, *, most: int) -> None:
        """Stop processes that wait for a place, until no more than so many are left in all.

        A cluster that grows by itself would bring hosts for them.
        """
        surplus = max(0, len(self.running) - most)
        for process in self.waiting[:surplus]:
            process.launched.stop()

    def take(self) -> News:
        """Return the news since the last call; drop ended processes from `running`."""
        # Exit codes are read first: all messages of an ended process are in the queue by then.
        codes = [(process, process.launched.poll()) for process in self.running.values()]
        ended = [(process, code) for process, code in codes if code is not None]
        messages = []
        with suppress(queue.Empty):
            while True:
                messages.append(self._messages.get_nowait())
        for process, _ in ended:
            del self.running[process.name]
        return News(messages=messages, ended=ended)

    def end(
        self, hurry: threading.Event, *, grace_s: float, note: Callable[[News], object]
    ) -> None:
        """Ask all processes to stop; kill the rest after the grace, or at a second request.

        Args:
            hurry: Set by a second request to stop.
            note: Called with the news while the processes stop.
        """
        for process in self.running.values():
            process.launched.stop()
        deadline = time.monotonic() + grace_s
        try:
            while not self.is_idle and time.monotonic() < deadline and not hurry.is_set():
                note(self.take())
                time.sleep(_POLL_S)
            note(self.take())
        finally:
            # A second interrupt in a notebook raises in the wait above, and the processes must
            # end all the same.
            for process in self.running.values():
                process.launched.kill()
            for process in self.running.values():
                process.launched.wait()


class JobSupervisor(Supervisor):
    """The processes of one run that have jobs and send messages, one JSON object per line."""

    def __init__(self, launcher: JobLauncher) -> None:
        super().__init__(launcher)
        self._jobs = launcher

    def start_job(self, name: str, slot: Slot, argv: Sequence[str], *, log: Path, job: str) -> None:
        """Start a process with a job."""

        def on_line(line: str) -> None:
            with suppress(ValueError):
                self._messages.put((name, json.loads(line)))

        launched = self._jobs.start_job(
            argv, environment=dict(slot.environment), log=log, job=job, on_line=on_line
        )
        self._note(name, slot, log, launched)
