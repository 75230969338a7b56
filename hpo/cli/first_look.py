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


class Report:
    """The standard output as it was; what an objective prints goes to the log from here on."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._number = os.dup(1)
        os.set_inheritable(self._number, False)
        os.dup2(2, 1)

    def say(self, **message: Any) -> None:
        """Write a message in a line; nobody may be left to read it."""
        with suppress(OSError):
            os.write(self._number, (json.dumps(message) + "\n").encode())

    def close(self) -> None:
        """Leave it to the process above this one."""
        os.close(self._number)


def look(
    pulse: Pulse, report: Report, *, parent: int, objective: str, device: str, threads: int
) -> dict[str, Any]:
    """Look at the objective, report, and return what follows of the worker's command line.

    Raises:
        SystemExit: The run has ended, or goes on without this process.
    """
    settings = _line()
    pulse.begin("import")
    import torch

    from hpo.check.start import faults
    from hpo.study.config import StudyConfig
    from hpo.study.objective import load_objective
    from hpo.worker.supervisor import watch_parent

    # It ends this process if the one above is gone and a hook hangs.
    watch_parent(parent, threading.Event())
    torch.set_num_threads(threads)
    config = StudyConfig.from_stored(settings)
    found = faults(load_objective(objective), config, torch.device(device), pulse.begin)
    report.say(faults=found)
    report.close()
    return _line()


def _line() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    found: dict[str, Any] = json.loads(line)
    return found
