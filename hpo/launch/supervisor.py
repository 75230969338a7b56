"""The processes of one run, a name each: started on slots, heard, and ended within a grace.

Border: which process is wanted next, and what its end means, is decided by `fleet` and `refit`.
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

from hpo.launch.launcher import Launched, Launcher
from hpo.machine.slots import Slot

# Short beside the half second in which a terminal is redrawn.
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process on a slot.

    Attributes:
        started_at: By the monotonic clock.
    """

    name: str
    slot: Slot
    log: Path
    started_at: float
    launched: Launched

    def last_line(self) -> str:
        """The last line of its log; empty where there is none."""
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""


@dataclass(frozen=True, kw_only=True)
class News:
    """Messages of processes, in their order, and the processes that ended after them."""

    messages: Sequence[tuple[str, Mapping[str, Any]]]
    ended: Sequence[tuple[Process, int]]


class Supervisor:
    """Processes that run, by their names."""

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
        job: str | None = None,
    ) -> None:
        """Start a process; with a job it answers in lines of JSON."""

        def hear(line: str) -> None:
            with suppress(ValueError):
                self._messages.put((name, json.loads(line)))

        launched = self._launcher.start(
            argv,
            environment={**(environment or {}), **dict(slot.environment)},
            log=log,
            job=job,
            hear=None if job is None else hear,
        )
        self.running[name] = Process(
            name=name, slot=slot, log=log, started_at=time.monotonic(), launched=launched
        )

    @property
    def is_idle(self) -> bool:
        """True if every process that was started has ended."""
        return all(process.launched.poll() is not None for process in self.running.values())

    def take(self) -> News:
        """The news since the last call; processes that ended are not running any more."""
        # Ends before messages: those of a process that has ended are all in the queue by then.
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
        """Ask all processes to stop; kill those that do not within the grace, or at a second ask.

        Args:
            hurry: The second ask.
            note: Called with the news meanwhile.
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
            # Also where a notebook is interrupted a second time, and this wait with it.
            for process in self.running.values():
                process.launched.kill()
            for process in self.running.values():
                process.launched.wait()
