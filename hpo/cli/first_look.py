"""The first worker's look at an objective, before the study exists: `worker --first`.

Its standard input and output are the run's: a line of JSON with the study's settings comes in, a
line with the faults goes out, and a line with the study's name comes in. The process is an ordinary
worker from then on. Without that line, as when the run has ended, so does this process.

Border: the talk of one process with the run that started it; `hpo.check.start` looks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.worker.pulse import Pulse


class Run:
    """The run that started this process, at the other end of its standard input and output.

    An objective finds neither: it reads the end of a file, and what it prints goes to the log.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._input = os.fdopen(os.dup(0), encoding="utf-8")
        self._output = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def say(self, **message: Any) -> None:
        """Write a message in a line; nobody may be left to read it."""
        with suppress(OSError):
            os.write(self._output, (json.dumps(message) + "\n").encode())

    def hear(self) -> dict[str, Any]:
        """Wait for a message.

        Raises:
            SystemExit: There is none to come.
        """
        line = self._input.readline()
        if not line:
            raise SystemExit(0)
        found: dict[str, Any] = json.loads(line)
        return found

    def leave(self) -> None:
        """Close this process's end of the output; the process above this one has it, too."""
        os.close(self._output)


def look(
    pulse: Pulse, run: Run, *, parent: int, objective: str, device: str, threads: int
) -> dict[str, Any]:
    """Look at the objective, report, and return what follows of the worker's command line.

    Raises:
        SystemExit: The run has ended, or goes on without this process.
    """
    settings = run.hear()
    import torch

    from hpo.check.start import faults
    from hpo.study.config import StudyConfig
    from hpo.study.objective import load_objective
    from hpo.task import compiler
    from hpo.worker.supervisor import watch_parent

    # It ends this process if the one above is gone and a hook hangs.
    watch_parent(parent, threading.Event(), pulse)
    compiler.defer()
    torch.set_num_threads(threads)
    config = StudyConfig.from_stored(settings)
    found = faults(load_objective(objective), config, torch.device(device), pulse.begin)
    run.say(faults=found)
    run.leave()
    return run.hear()
