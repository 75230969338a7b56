"""A task of Slurm as a launched process: its state, its log, its exit code.

Border: one task. Its launcher asks Slurm for all of them together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from hpo.launch.log import opened
from hpo.launch.slurm_script import log_pattern, numbered
from hpo.launch.slurm_states import State

# A controller that has not noted a cancellation by then is down.
_CANCELLED_S = 30.0
_POLL_S = 0.2


class Turns(Protocol):
    """The part of the launcher that its tasks use."""

    def turn(self) -> None:
        """Have what is new submitted; return at once."""

    def ask(self, task: SlurmTask, *, is_kill: bool) -> None:
        """Have a task end, at once or when it has saved its state."""


class SlurmTask:
    """A task of a job array.

    Attributes:
        key: Its name in Slurm, as `12_3`; None before it is submitted.
        state: What Slurm said last.
        began_at: Monotonic time of its start; None while it waits in the queue.
    """

    def __init__(
        self,
        launcher: Turns,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self._launcher, self.log = launcher, log
        self.pattern, self.number = log_pattern(log)
        self.argv = tuple(numbered(word, self.number) for word in argv)
        self.environment = dict(environment)
        self.key: str | None = None
        self.state = State(word="PENDING")
        self.began_at: float | None = None
        self.pid: int | None = None
        self._killed_at: float | None = None

    @property
    def job_name(self) -> str:
        """The name of its job, unless the user has given one."""
        return f"hpo-{self.log.parent.name[:8]}"

    def make_log(self) -> None:
        """Make its log, whose folder Slurm would not make."""
        opened(self.log).close()

    def is_queued_again(self, state: State) -> bool:
        """Return whether it had started and waits again, as after the death of its host."""
        return self.began_at is not None and not state.has_started

    def note(self, state: State) -> None:
        """Take over what Slurm says."""
        if state.has_started and self.began_at is None:
            self.began_at = time.monotonic()
        if state.code is not None and state.sentence:
            # An end that Slurm chose leaves no word of the worker's.
            with suppress(OSError), self.log.open("a", encoding="utf-8") as file:
                file.write(f"{self.key}: {state.sentence}\n")
        self.state = state

    def poll(self) -> int | None:
        # Before the turn, which raises what has ended all of them.
        code = self.state.code
        self._launcher.turn()
        return code

    def stop(self) -> None:
        self._launcher.ask(self, is_kill=False)

    def kill(self) -> None:
        self._killed_at = time.monotonic()
        self._launcher.ask(self, is_kill=True)

    def wait(self) -> int:
        """Wait until it has ended, or until Slurm ends it and nothing more is to be done."""
        # All are killed before one is waited for, so they share this time.
        deadline = (self._killed_at or time.monotonic()) + _CANCELLED_S
        while (code := self.poll()) is None and time.monotonic() < deadline:
            if self.state.is_leaving:
                break
            time.sleep(_POLL_S)
        return -9 if code is None else code


def arrays(tasks: Sequence[SlurmTask]) -> list[list[SlurmTask]]:
    """Tasks that differ in their number alone, together."""
    found: dict[Any, list[SlurmTask]] = {}
    for task in tasks:
        same = (task.argv, task.pattern, tuple(sorted(task.environment.items())))
        found.setdefault(same, []).append(task)
    return list(found.values())
