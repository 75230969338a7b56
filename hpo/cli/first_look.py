"""The first worker's part before the study exists: `worker --first`.

Its standard input and output are the run's, a line of JSON for each message. The run asks for the
objective's declarations and hooks, has it looked at with the study's settings, and sends the
study's name at last. The process is an ordinary worker from then on. Without that line, as when the
run has ended, so does this process.

Border: the talk of one process with the run that started it; `hpo.check.start` looks, and
`hpo.fleet.first` is the run's side.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hpo.cli.shared import uncollected

if TYPE_CHECKING:
    from hpo.worker.pulse import Pulse

# What a worker imports for 1.5 s, while the run reads the database and creates the study.
_IMPORTS = ("torch", "hpo.check.start", "hpo.study.study", "hpo.worker.worker")


class Run:
    """The run that started this process, at the other end of its standard input and output.

    An objective finds neither: it reads the end of a file, and what it prints goes to the log.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._input, self._output = os.dup(0), os.dup(1)
        self._heard = b""
        # The log moves to the study's folder, for this process and for the one above it.
        self._above, self._below = socket.socketpair()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def say(self, **message: Any) -> None:
        """Write a message in a line; nobody may be left to read it.

        Raises:
            TypeError: It is no plain data.
        """
        left = (json.dumps(message) + "\n").encode()
        with suppress(OSError):
            while left:
                left = left[os.write(self._output, left) :]

    def hear(self) -> dict[str, Any]:
        """Wait for a message.

        Raises:
            SystemExit: There is none to come.
        """
        while b"\n" not in self._heard:
            more = os.read(self._input, 1 << 16)
            if not more:
                raise SystemExit(0)
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def is_speaking(self) -> bool:
        """Return whether there is a message to hear, or the end of all."""
        return bool(self._heard) or bool(select.select([self._input], [], [], 0)[0])

    def leave(self) -> None:
        """Close this process's end of the output; the process above this one has it, too."""
        os.close(self._output)

    def move_log(self, log: Path, to: Path) -> None:
        """Append what this worker has logged to another file, and log there from here on."""
        self._above.close()
        with to.open("ab") as file:
            socket.send_fds(self._below, [b"."], [file.fileno()])
            # From its answer on nothing is written to the first file.
            self._below.recv(1)
            with suppress(OSError):
                file.write(log.read_bytes())
            file.flush()
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        with suppress(OSError):
            log.unlink()
            log.parent.rmdir()

    def follow_log(self) -> None:
        """Log where the trainer will, in the process above it."""
        self._below.close()

        def follow() -> None:
            _, files, _, _ = socket.recv_fds(self._above, 1, 1)
            for file in files:
                os.dup2(file, 1)
                os.dup2(file, 2)
                os.close(file)
                self._above.send(b".")

        threading.Thread(target=follow, name="log", daemon=True).start()


def serve(pulse: Pulse, run: Run, *, parent: int, device: str, threads: int) -> dict[str, Any]:
    """Answer the run until it sends the worker's study; return that message.

    Raises:
        SystemExit: The run has ended, or goes on without this process.
    """
    from hpo.worker.supervisor import watch_parent

    # It ends this process if the one above is gone and a hook hangs.
    watch_parent(parent, threading.Event(), pulse)
    served: _Served | None = None
    left = list(_IMPORTS)
    with uncollected():
        # The first one is imported in any case.
        import_module(left.pop(0))
    while True:
        if left and not run.is_speaking():
            with uncollected():
                import_module(left.pop(0))
            continue
        message = run.hear()
        if "study_name" in message:
            return message
        if not message:
            continue
        if served is None:
            served = _Served(pulse, device=device, threads=threads)
        _answer(run, served, message)


def _answer(run: Run, served: _Served, message: Mapping[str, Any]) -> None:
    from hpo.study.described import as_data

    try:
        run.say(found=served.ask(message))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        run.say(raised=as_data(error))


class _Served:
    """The objective that the run asks about."""

    def __init__(self, pulse: Pulse, *, device: str, threads: int) -> None:
        import torch

        from hpo.task import compiler

        compiler.defer()
        torch.set_num_threads(threads)
        self._device, self._pulse = torch.device(device), pulse
        self._spec, self._objective = "", cast(Any, None)

    def ask(self, message: Mapping[str, Any]) -> Any:
        """The answer to a message, as plain data."""
        asked: dict[str, Callable[[Mapping[str, Any]], Any]]
        asked = {"objective": self._described, "hook": self._called, "settings": self._faults}
        return next(asked[name](message) for name in asked if name in message)

    def _described(self, message: Mapping[str, Any]) -> Any:
        from hpo.errors import ObjectiveError
        from hpo.study.declared import declared
        from hpo.study.objective import declarations, faulty, load_objective

        self._spec = spec = message["objective"]
        self._objective = load_objective(spec)
        faults = [one.detail for one in declared(self._objective) if one.state == "failed"]
        if faults:
            raise ObjectiveError(faulty(spec, faults))
        return declarations(self._objective)

    def _called(self, message: Mapping[str, Any]) -> Any:
        from hpo.errors import ObjectiveError
        from hpo.study.described import HOOKS, written
        from hpo.study.spaces import refuse_faulty
        from hpo.task.raised import described
        from objectives import bound

        hook = message["hook"]
        assert hook in HOOKS
        under = message.get("under")
        try:
            objective = self._objective if under is None else bound(self._objective, under)
            found = getattr(objective, hook)(*message["arguments"])
            if hook == "spaces_for":
                refuse_faulty(found)
                return written(found)
            return _plain(dict(found) if hook in ("settle", "reasons") else found)
        except BaseException as error:
            # By these a hook refuses the options of a study, and the run says so.
            is_refusal = hook == "settle" and isinstance(error, ValueError | OSError)
            if is_refusal or isinstance(error, KeyboardInterrupt | ObjectiveError):
                raise
            where = f"objective '{self._spec}', in {hook}()"
            raise ObjectiveError(f"{where}: {described(error)}") from error

    def _faults(self, message: Mapping[str, Any]) -> Any:
        with uncollected():
            from hpo.check.start import faults
            from hpo.study.config import StudyConfig

        config = StudyConfig.from_stored(message["settings"])
        return faults(self._objective, config, self._device, self._pulse.begin)


def _plain(found: Any) -> Any:
    """What a hook returned, as plain data.

    Raises:
        TypeError: A database would not store it.
    """
    from hpo.task.build import plain

    # A seed, too, may be a number of numpy's or torch's.
    found = plain(found) if isinstance(found, Mapping) else plain({"": found})[""]
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise TypeError(f"it gave {found!r}, which a database does not store") from error
    return found
