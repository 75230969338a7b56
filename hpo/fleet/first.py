"""The first worker of a run: it imports the objective, looks at it before the study exists, joins.

So a run refuses what no trial could be trained with while nothing is in the database yet, and its
own process needs neither torch nor the objective's code. The worker starts with the run: it imports
torch while the run connects and reads.

Border: one process, from its start to its adoption by the fleet; `hpo.cli.first_look` is its side.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hpo import trust
from hpo.errors import ObjectiveError, RunFailed, RunInterrupted
from hpo.fleet.config import FleetConfig
from hpo.fleet.events import Event, Looking
from hpo.launch.launcher import JobLauncher
from hpo.launch.supervisor import Process
from objectives import Objective, add_folder, names

if TYPE_CHECKING:
    from hpo.study.config import StudyConfig
    from hpo.study.join import Prepared

_POLL_S = 0.05
# A process that is asked to end while it waits has nothing to save.
_END_S = 2.0


class FirstWorker:
    """The first worker, which starts at once; a context that ends it unless adopted.

    Args:
        below: Makes the configuration of a fleet from a study's uid.
        storage: The URL of the storage, which holds a password.
        emit: Called with the event of the look.
        stop: Set to end the run.
        timeout_s: Wall time of the run; None for no limit.
        goes_on: False if the process is to end after its look, whatever follows.
    """

    def __init__(
        self,
        launcher: JobLauncher,
        below: Callable[[str], FleetConfig],
        *,
        storage: str,
        emit: Callable[[Event], None],
        stop: threading.Event,
        timeout_s: float | None = None,
        goes_on: bool = True,
    ) -> None:
        self._emit, self._stop, self._goes_on = emit, stop, goes_on
        self._messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._is_log_needed, self._has_code = False, False
        self._timeout_s, self.started_at = timeout_s, time.monotonic()
        fleet = below(f"new-{secrets.token_hex(4)}")
        slot = fleet.slots[0]
        log = fleet.log_of(slot)
        self._job = launcher.start_job(
            fleet.first_argv(slot),
            environment={"HPO_STORAGE": storage, **dict(slot.environment)},
            log=log,
            # An empty message; the objective is named once it may be imported.
            job="{}",
            on_line=self._hear,
        )
        self._process: Process | None = Process(
            name=slot.name, slot=slot, log=log, started_at=time.monotonic(), launched=self._job
        )

    def __enter__(self) -> FirstWorker:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _hear(self, line: str) -> None:
        with suppress(ValueError):
            self._messages.put(json.loads(line))

    def find(self, given: str | None, stored: str, *, what: str) -> Objective:
        """Have the process import an objective, as `named_objective` does; its description.

        Raises:
            ConfigurationError: Nobody named it on this host.
            ObjectiveError: There is none, it cannot be imported, or a declaration of it is wrong.
            RunInterrupted: The run was stopped meanwhile.
        """
        from hpo.study.described import Described
        from hpo.study.objective import is_missing, load_objective

        spec = stored if given is None else given
        if given is None and stored not in names():
            trust.refuse_unnamed("objective", stored, what=what)
        if is_missing(spec):
            # That needs no process, and says so at once.
            return load_objective(spec)
        described = self._asked(
            lambda how: f"objective '{spec}' cannot be imported: {how}", objective=spec
        )
        if given is not None and given not in names():
            trust.name("objective", given)
        # A sampler or a pruner may lie beside it.
        add_folder(spec)

        def ask(hook: str, *arguments: Any, under: Mapping[str, str] | None = None) -> Any:
            return self._asked(
                lambda how: f"objective '{spec}', in {hook}(): {how}",
                hook=hook,
                arguments=arguments,
                under=under,
            )

        return Described.of(described, ask)

    def look(self, config: StudyConfig, objective: str, uid: str | None) -> None:
        """Have the process look at its objective with a study's settings.

        Args:
            uid: The study's; None before it exists.

        Raises:
            ObjectiveError: The objective has faults, or its code ended the process.
            RunInterrupted: The run was stopped meanwhile.
        """
        from hpo.study.objective import faulty

        self._emit(Looking(objective=objective))
        faults = self._asked(
            lambda how: f"objective '{objective}', built with its default configuration: {how}",
            is_new=uid is None,
            settings=config.stored(),
        )
        if faults:
            raise ObjectiveError(faulty(objective, faults))

    def _asked(self, said: Callable[[str], str], *, is_new: bool = True, **message: Any) -> Any:
        """The process's answer to a message; raises what the objective raised.

        Args:
            said: Makes the error of a process that has ended without an answer.
        """
        from hpo.study.described import raise_again

        process = self._process
        assert process is not None
        self._has_code = True
        self._job.answer(json.dumps(message), is_last=False)
        found = self._answer(process, is_new=is_new)
        if "found" in found:
            return found["found"]
        if "raised" in found:
            raise_again(found["raised"])
        self._is_log_needed = True
        if not found["ended"].startswith(("hung", "its process")):
            raise RunFailed(f"the first worker ended: {found['ended']}; see '{process.log}'")
        raise ObjectiveError(f"{said(found['ended'])}; the log is '{process.log}'")

    def _answer(self, process: Process, *, is_new: bool) -> Mapping[str, Any]:
        code = None
        while True:
            with suppress(queue.Empty):
                # All lines of an ended process are in the queue.
                return self._messages.get(timeout=_POLL_S if code is None else 0)
            if code is not None:
                return {"ended": f"its process ended with code {code}"}
            code = process.launched.poll()
            passed_s = time.monotonic() - self.started_at
            is_over = self._timeout_s is not None and passed_s > self._timeout_s
            if is_over or self._stop.is_set():
                ended = f"{self._timeout_s:g} s are over" if is_over else "the run was stopped"
                what = "was created" if is_new else "went on"
                raise RunInterrupted(f"{ended} before its study {what}")

    def adopted(self, prepared: Prepared, config: FleetConfig) -> Process | None:
        """Send the process into the study, and leave it to the caller; None if there is none."""
        process = self._process
        if process is None:
            return None
        self._is_log_needed = process.launched.poll() is not None
        budget = prepared.tickets.count()
        if not self._goes_on or self._is_log_needed or budget.ended == budget.total:
            self._end()
            return None
        log = config.log_of(config.slots[0])
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._process = None
        plugins = config.plugins(prepared.opened.config)
        about = {
            "study_name": prepared.opened.name,
            "objective": prepared.objective,
            "checkpoint_folder": None,
            **config.places(),
            "log": [str(process.log), str(log)],
            "sampler": plugins.get("sampler"),
            "pruner": plugins.get("pruner"),
        }
        self._job.answer(json.dumps(about))
        return Process(**{**vars(process), "log": log})

    def _end(self) -> None:
        """End the process, and everything that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        process.launched.stop()
        # Before it was asked anything it imports, and hears of no end.
        deadline = time.monotonic() + (_END_S if self._has_code else 0)
        try:
            while process.launched.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        finally:
            # A second signal raises in the wait above, and the process must end all the same.
            process.launched.kill()
            process.launched.wait()
        if not self._is_log_needed:
            with suppress(OSError):
                process.log.unlink()
                process.log.parent.rmdir()
