"""The Slurm launcher: a worker is a task of a job array, submitted by `sbatch`.

The processes that a fleet starts in one turn are one array, and one that is started again later is
an array of its own. PostgreSQL counts the trials, so a task may wait in the queue for as long as it
takes, and one that Slurm queues again takes the next ticket. Slurm's commands are run by a thread,
because a controller that hangs must not keep a run from looking after its study.

Border: what is asked of which task, and when; `slurm_queue` runs the commands, and `slurm_script`
writes the script.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError, HpoError
from hpo.launch import slurm_queue
from hpo.launch.slurm_queue import Busy
from hpo.launch.slurm_script import script
from hpo.launch.slurm_states import State
from hpo.launch.slurm_task import SlurmTask, arrays
from hpo.start import PROGRAM

# All tasks of all users are served by one controller.
_LOOK_S = 2.0
# A controller that does not answer is asked again after this time.
_RETRY_S = 10.0
# What is asked of several tasks one after the other is collected for so long.
_POLL_S = 0.2
# A run that ends waits so long for the command that is under way.
_CLOSED_S = slurm_queue.ANSWER_S + 2.0
# An array that is refused after others were taken, as over a limit of jobs, is submitted again.
_SUBMIT_AGAIN_S = 30.0
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
        self._environment = slurm_queue.without_own_job(environment)
        self._options = dict(options)
        # It guards the tasks that are not submitted, and what is asked of others.
        self._lock = threading.Lock()
        self._new: list[SlurmTask] = []
        self._due: list[SlurmTask] = []
        self._asked: dict[bool, list[SlurmTask]] = {False: [], True: []}
        # The thread alone uses these.
        self._live: dict[str, SlurmTask] = {}
        self._missing: set[str] = set()
        self._look_at = self._submit_at = self._ask_at = 0.0
        self._has_submitted = False
        self._failure: Exception | None = None
        # The name of tasks of which it is not known whether Slurm has them.
        self._doubtful: str | None = None
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

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
    ) -> SlurmTask:
        """Collect a command for the next array."""
        task = SlurmTask(self, argv, environment=environment, log=log.absolute())
        with self._lock:
            self._new.append(task)
        return task

    def close(self) -> None:
        """End all tasks that are left, and say so if Slurm does not take that."""
        with self._lock:
            self._new.clear()
            self._due.clear()
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join(_CLOSED_S)
        left = list(self._live.values())
        try:
            if left:
                slurm_queue.cancel([task.key for task in left if task.key])
        except Busy as error:
            _logger.warning("%s", error)
            self._doubtful = self._name(left)
        if self._doubtful is not None:
            text = "tasks may be left in Slurm; 'scancel --name=%s' ends them"
            _logger.warning(text, self._doubtful)

    def ask(self, task: SlurmTask, *, is_kill: bool) -> None:
        """Have a task end, at once or when it has saved its state."""
        with self._lock:
            waiting = next((these for these in (self._new, self._due) if task in these), None)
            if waiting is not None:
                waiting.remove(task)
                task.state = State(word="CANCELLED", code=0)
            elif task.state.code is None:
                self._asked[is_kill].append(task)

    def turn(self) -> None:
        """Have what is new submitted; return at once.

        Raises:
            ConfigurationError: Slurm refuses the first array.
            Busy: Slurm does not take the first array.
        """
        with self._lock:
            self._due += self._new
            self._new.clear()
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="slurm", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._is_closed.is_set():
            try:
                self._step()
            except Exception as error:
                # The run ends by it, where it polls next.
                self._failure = error
            self._is_closed.wait(_POLL_S)

    def _step(self) -> None:
        """Submit what is new, pass on what was asked, and read the states if it is time."""
        if self._due and time.monotonic() >= self._submit_at:
            self._submit()
        is_asked = bool(self._asked[False] or self._asked[True])
        if is_asked and time.monotonic() >= self._ask_at:
            self._pass_on()
        if self._live and time.monotonic() >= self._look_at:
            self._look()

    def scripts(self) -> list[str]:
        """The scripts of all that is collected, as they would be submitted."""
        return [self._script(tasks) for tasks in arrays(self._new)]

    def _script(self, tasks: Sequence[SlurmTask]) -> str:
        first, numbers, name = tasks[0], [task.number for task in tasks], self._name(tasks)
        return script(
            first.argv, tasks=numbers, log=first.pattern, name=name, options=self._options
        )

    def _name(self, tasks: Sequence[SlurmTask]) -> str:
        return str(self._options.get("job_name") or tasks[0].job_name)

    def _submit(self) -> None:
        with self._lock:
            due, self._due = self._due, []
        left = arrays(due)
        while left and not self._is_closed.is_set():
            self._doubtful, before = self._name(left[0]), self._doubtful
            try:
                left[0][0].make_log()
                environment = {**self._environment, **left[0][0].environment}
                job = slurm_queue.submit(self._script(left[0]), environment)
            except (ConfigurationError, Busy) as error:
                if not isinstance(error, Busy):
                    self._doubtful = before
                self._note_refused([task for array in left for task in array], error)
                return
            self._doubtful, self._has_submitted = before, True
            for task in left.pop(0):
                task.key = f"{job}_{task.number}"
                self._live[task.key] = task

    def _note_refused(self, tasks: Sequence[SlurmTask], error: HpoError) -> None:
        """End the run by an error, or submit again after a while if Slurm has taken tasks."""
        if self._has_submitted:
            self._submit_at = time.monotonic() + _SUBMIT_AGAIN_S
            _logger.warning("%s; it is tried again in %g s", error, _SUBMIT_AGAIN_S)
        else:
            # It comes before the states, of which a run would make its own sentence.
            self._failure = error
        with self._lock:
            asked = [*self._asked[False], *self._asked[True]]
            for task in tasks:
                if not self._has_submitted:
                    task.state = State(word="REFUSED", code=error.exit_code)
                elif task in asked:
                    task.state = State(word="CANCELLED", code=0)
                else:
                    self._due.append(task)

    def _pass_on(self) -> None:
        # What is asked of a task depends on whether it runs by now.
        self._ask_at = time.monotonic() + _POLL_S
        if not self._look():
            return
        with self._lock:
            asked = {is_kill: list(tasks) for is_kill, tasks in self._asked.items()}
        stopped, killed = (
            [task for task in tasks if task.key and task.state.code is None]
            for tasks in (asked[False], asked[True])
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
        with self._lock:
            for is_kill, tasks in asked.items():
                self._asked[is_kill] = self._asked[is_kill][len(tasks) :]
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
            try:
                slurm_queue.cancel([key])
            except Busy:
                # It must not run beside its successor, so there is none yet.
                return
            state = State(word="REQUEUED", code=-15)
        task.note(state)
