"""Keep the state of this process that a trial may change, and restore it before the next one.

A trial's value is to be a function of its parameters and its seed, so what one trial sets for
itself must not reach the next. Border: settings that can be read back, which `process_python`,
`process_system` and `process_torch` list. Globals of modules and patched libraries stay as they
are: `hpo check` names them, and `--fresh_process` gives each trial a process of its own.
"""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import torch

from hpo.task.process_python import PYTHON
from hpo.task.process_system import SYSTEM
from hpo.task.process_torch import TORCH
from hpo.task.setting import Setting

# Those of the system come first: the streams are needed to report a failure.
SETTINGS: tuple[Setting, ...] = (*SYSTEM, *PYTHON, *TORCH)

_logger = logging.getLogger(__name__)


class ProcessState:
    """The settings of this process at one moment, read by the thread that trains."""

    def __init__(self) -> None:
        self._recursion_limit = sys.getrecursionlimit()
        self._kept = [(setting, setting.capture()) for setting in SETTINGS]

    def restore(self) -> list[str]:
        """Restore all settings; return the names of those that had changed.

        A setting that cannot be restored is reported in the log, and the others are restored.
        """
        # Under a low one nothing else could be restored.
        if is_limited := sys.getrecursionlimit() != self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
        changed = ["recursion limit"] if is_limited else []
        for setting, kept in self._kept:
            try:
                if setting.restore(kept):
                    changed.append(setting.name)
            except Exception as error:
                _logger.warning("%s cannot be restored after a trial: %s", setting.name, error)
        torch.clear_autocast_cache()
        _forget_compiled()
        return changed


def _forget_compiled() -> None:
    """Forget what `torch.compile` compiled.

    It keeps at most 8 versions of a function, whatever trial they belong to, and runs the function
    uncompiled or raises from the ninth on.
    """
    # A process that compiled nothing has not imported it, which would take seconds.
    dynamo: ModuleType | None = sys.modules.get("torch._dynamo")
    if dynamo is not None and hasattr(dynamo, "reset"):
        dynamo.reset()
