"""The Slurm launcher: a worker is a task of a job array, submitted by `sbatch`.

The processes that a fleet starts in one turn are one array, and one that is started again later is
an array of its own. PostgreSQL counts the trials, so a task may wait in the queue for as long as it
takes, and one that Slurm queues again takes the next ticket.

Border: what is asked of which task, and when; `slurm_queue` runs the commands, and `slurm_script`
writes the script.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError
from hpo.launch import slurm_queue
from hpo.launch.slurm_queue import Busy
from hpo.launch.slurm_script import script
from hpo.launch.slurm_states import State
from hpo.launch.slurm_task import SlurmTask
from hpo.start import PROGRAM

# All tasks of all users are served by one controller.
_LOOK_S = 2.0
# A controller that does not answer is asked again after this time.
_RETRY_S = 10.0
# What is asked of several tasks one after the other is collected for so long.
_POLL_S = 0.2
# An array that is refused after others were taken, as over a limit of jobs, is submitted again.
_SUBMIT_AGAIN_S = 30.0
# sbatch takes these from the environment, and prefers them to the script's own lines.
_OVERRIDING = (
    "ARRAY_INX",
    "EXPORT",
    "GET_USER_ENV",
    "NO_REQUEUE",
    "OPEN_MODE",
    "REQUEUE",
    "SIGNAL",
)

_logger = logging.getLogger(__name__)


class SlurmLauncher:
    """A launcher of tasks in job arrays.

    What is asked of several processes one after the other goes to Slurm together, when one of them
    is polled next.

    Args:
        environment: Base environment of the tasks.
        options: sbatch's, by names with underscores.
    """

    def __init__(self, environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self._environment = _without_own_job(environment)
        self._options = dict(options)
        self._new: list[SlurmTask] = []
        self._live: dict[str, SlurmTask] = {}
        self._asked: dict[bool, list[SlurmTask]] = {False: [], True: []}
        self._missing: set[str] = set()
        self._look_at = self._submit_at = self._ask_at = 0.0
        self._has_submitted = False

    @property
    def program(self) -> Sequence[str]:
        """The first words of this program's command line, which all hosts share."""
        return PROGRAM

    @property
    def tether(self) -> Sequence[str]:
        """Nothing: tasks of a run that was killed work on until all trials have ended."""
        return ()

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        job: str | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> SlurmTask:
        """Collect a command for the next array."""
        assert job is None and on_line is None, "a task of Slurm has no standard input"
        task = SlurmTask(self, argv, environment=environment, log=log.absolute())
        self._new.append(task)
        return task

    def close(self) -> None:
        """End all tasks that are left."""
        self._new.clear()
        left = list(self._live)
        if left:
            with suppress(Busy):
                slurm_queue.cancel(left)

    def ask(self, task: SlurmTask, *, is_kill: bool) -> None:
        """Have a task end, at once or when it has saved its state."""
        if task.key is None and task.state.code is None:
            self._new.remove(task)
            task.state = State(word="CANCELLED", code=0)
        elif task.state.code is None:
            self._asked[is_kill].append(task)

    def turn(self) -> None:
        """Submit what is new, pass on what was asked, and read the states if it is time.

        Raises:
            ConfigurationError: Slurm refuses the first array.
            Busy: Slurm does not take the first array.
        """
        if self._new and time.monotonic() >= self._submit_at:
            self._submit()
        is_asked = bool(self._asked[False] or self._asked[True])
        if is_asked and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + _POLL_S
            self._pass_on()
        if self._live and time.monotonic() >= self._look_at:
            self._look()

    def scripts(self) -> list[str]:
        """The scripts of all that is collected, as they would be submitted."""
        return [self._script(tasks) for tasks in self._arrays()]

    def _arrays(self) -> list[list[SlurmTask]]:
        arrays: dict[Any, list[SlurmTask]] = {}
        for task in self._new:
            same = (task.argv, task.pattern, tuple(sorted(task.environment.items())))
            arrays.setdefault(same, []).append(task)
        return list(arrays.values())

    def _script(self, tasks: Sequence[SlurmTask]) -> str:
        first, numbers = tasks[0], [task.number for task in tasks]
        name = f"hpo-{first.log.parent.name[:8]}"
        return script(
            first.argv, tasks=numbers, log=first.pattern, name=name, options=self._options
        )

    def _submit(self) -> None:
        for tasks in self._arrays():
            try:
                _make_folder(tasks[0].log.parent)
                environment = {**self._environment, **tasks[0].environment}
                job = slurm_queue.submit(self._script(tasks), environment)
            except (ConfigurationError, Busy) as error:
                if self._has_submitted:
                    self._submit_at = time.monotonic() + _SUBMIT_AGAIN_S
                    _logger.warning("%s; it is tried again in %g s", error, _SUBMIT_AGAIN_S)
                    return
                for task in self._new:
                    task.state = State(word="REFUSED", code=error.exit_code)
                self._new.clear()
                raise
            self._has_submitted = True
            for task in tasks:
                self._new.remove(task)
                task.key = f"{job}_{task.number}"
                self._live[task.key] = task

    def _pass_on(self) -> None:
        # What is asked of a task depends on whether it runs by now.
        if not self._look():
            return
        stopped, killed = (
            [task for task in tasks if task.key and task.state.code is None]
            for tasks in (self._asked[False], self._asked[True])
        )
        to_cancel = [*killed, *(task for task in stopped if not task.state.has_started)]
        to_signal = [task for task in stopped if task not in to_cancel]
        try:
            if to_cancel:
                slurm_queue.cancel([task.key for task in to_cancel if task.key])
            if to_signal:
                slurm_queue.ask_to_stop([task.key for task in to_signal if task.key])
        except Busy as error:
            _logger.warning("%s", error)
            return
        for tasks in self._asked.values():
            tasks.clear()
        self._look_at = time.monotonic() + _LOOK_S / 4

    def _look(self) -> bool:
        """Read the states of all tasks; return False if Slurm does not answer."""
        self._look_at = time.monotonic() + _LOOK_S
        try:
            found = slurm_queue.states()
            lost = self._missing & (missing := self._live.keys() - found.keys())
            if lost:
                # It is not known how they ended, so others take their seats.
                unknown = dict.fromkeys(lost, State(word="COMPLETED", code=0))
                found |= {**unknown, **slurm_queue.recorded(lost)}
        except Busy as error:
            self._look_at = time.monotonic() + _RETRY_S
            _logger.info("%s", error)
            return False
        self._missing = missing - lost
        for key, task in list(self._live.items()):
            if key in found:
                self._note(key, task, found[key])
            if task.state.code is not None:
                del self._live[key]
        return True

    def _note(self, key: str, task: SlurmTask, state: State) -> None:
        if task.is_queued_again(state):
            # Slurm lets it wait for two minutes at least, while a new task may start at once.
            with suppress(Busy):
                slurm_queue.cancel([key])
            state = State(word="REQUEUED", code=-15)
        task.note(state)


def _without_own_job(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what Slurm has set for a job in which this process itself runs."""
    found = {}
    for name, value in environment.items():
        is_own_jobs = name.startswith(("SLURM_", "SLURMD_")) and name != "SLURM_CONF"
        if not is_own_jobs and name.removeprefix("SBATCH_") not in _OVERRIDING:
            found[name] = value
    return found


def _make_folder(logs: Path) -> None:
    """Make the folder of logs, which Slurm does not make."""
    try:
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the folder '{logs}' cannot be made: {error.strerror}; mend that, or name another "
            "folder that all hosts share (HPO_HOME)"
        ) from error
