"""The first worker of a run: it looks at the objective before the study exists, then joins it.

So a run refuses what no trial could be trained with while nothing is in the database yet, and the
parent process needs no torch; the worker has imported it by the time the study is there.

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
from typing import Any

from hpo.errors import ObjectiveError, RunFailed, RunInterrupted
from hpo.fleet.config import FleetConfig
from hpo.fleet.events import Event, Looking
from hpo.launch.launcher import Launcher
from hpo.launch.supervisor import Process
from hpo.study.config import StudyConfig
from hpo.study.join import Prepared
from hpo.study.objective import faulty

_POLL_S = 0.05
# A process that is asked to end while it waits has nothing to save.
_END_S = 2.0


class FirstWorker:
    """The first worker, started when it is asked to look; a context that ends it unless adopted.

    Args:
        below: Makes the configuration of a fleet from a study's uid.
        url: The storage, which holds a password.
        emit: Called with the event of the look.
        stop: Set to end the run.
        timeout_s: Wall time of the run; None for no limit.
        goes_on: False if the process is to end after its look, whatever follows.
    """

    def __init__(
        self,
        launcher: Launcher,
        below: Callable[[str], FleetConfig],
        *,
        url: str,
        emit: Callable[[Event], None],
        stop: threading.Event,
        timeout_s: float | None = None,
        goes_on: bool = True,
    ) -> None:
        self._launcher, self._below, self._url = launcher, below, url
        self._emit, self._stop, self._goes_on = emit, stop, goes_on
        self._messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._process: Process | None = None
        self._is_new = self._is_log_needed = False
        self._timeout_s, self.started_at = timeout_s, time.monotonic()

    def __enter__(self) -> FirstWorker:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def look(self, config: StudyConfig, objective: str, uid: str | None) -> None:
        """Have the process look at an objective with a study's settings.

        Args:
            uid: The study's; None before it exists. The log moves to its folder then.

        Raises:
            ObjectiveError: The objective has faults, or its code ended the process.
            RunInterrupted: The run was stopped meanwhile.
        """
        self._emit(Looking(objective=objective))
        self._is_new = uid is None
        fleet = self._below(uid or f"new-{secrets.token_hex(4)}")
        process = self._process = self._start(fleet, config, objective)
        while (code := process.launched.poll()) is None and self._messages.empty():
            passed_s = time.monotonic() - self.started_at
            is_over = self._timeout_s is not None and passed_s > self._timeout_s
            if is_over or self._stop.wait(_POLL_S):
                ended = f"{self._timeout_s:g} s are over" if is_over else "the run was stopped"
                what = "was created" if self._is_new else "went on"
                raise RunInterrupted(f"{ended} before its study {what}")
        try:
            message = self._messages.get(timeout=0 if code is None else _POLL_S)
        except queue.Empty:
            message = {"ended": f"its process ended with code {code}"}
        if "faults" in message:
            if not message["faults"]:
                return
            raise ObjectiveError(faulty(objective, message["faults"]))
        self._is_log_needed = True
        if not message["ended"].startswith(("hung", "its process")):
            raise RunFailed(f"the first worker ended: {message['ended']}; see '{process.log}'")
        raise ObjectiveError(
            f"objective '{objective}', built with its default configuration: {message['ended']}; "
            f"the log is '{process.log}'"
        )

    def _start(self, fleet: FleetConfig, config: StudyConfig, objective: str) -> Process:
        slot = fleet.slots[0]
        log = fleet.log_of(slot)

        def on_line(line: str) -> None:
            with suppress(ValueError):
                self._messages.put(json.loads(line))

        launched = self._launcher.start(
            fleet.first_argv(slot, objective, config),
            environment={"HPO_STORAGE": self._url, **dict(slot.environment)},
            log=log,
            job=json.dumps(config.stored()),
            on_line=on_line,
        )
        return Process(
            name=slot.name, slot=slot, log=log, started_at=time.monotonic(), launched=launched
        )

    def adopted(self, prepared: Prepared, config: FleetConfig) -> Process | None:
        """Send the process into the study, and leave it to the caller; None if there is none."""
        process, log = self._process, config.log_of(config.slots[0])
        # Another run may have created the study meanwhile, and have workers on this host.
        is_taken = process is not None and process.log != log and log.exists()
        has_ended = process is not None and process.launched.poll() is not None
        self._is_log_needed = has_ended
        if process is None or is_taken or not self._goes_on or has_ended:
            self._end()
            return None
        if process.log != log:
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            process.log.rename(log)
            with suppress(OSError):
                process.log.parent.rmdir()
        self._process = None
        about = {"study_name": prepared.opened.name, "checkpoint_dir": str(config.checkpoints)}
        process.launched.answer(json.dumps(about))
        return Process(**{**vars(process), "log": log})

    def _end(self) -> None:
        """End the process, and everything that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        process.launched.stop()
        deadline = time.monotonic() + _END_S
        try:
            while process.launched.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        finally:
            # A second signal raises in the wait above, and the process must end all the same.
            process.launched.kill()
            process.launched.wait()
        if self._is_new and not self._is_log_needed:
            with suppress(OSError):
                process.log.unlink()
                process.log.parent.rmdir()
