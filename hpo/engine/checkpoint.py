"""A trial's checkpoints: one file an attempt, written under a temporary name, then renamed.

A checkpoint is an insurance: if it cannot be written, the trial goes on without it; if it cannot be
read, an earlier attempt's is taken, or the trial starts over.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hpo import files
from hpo.engine.average import Average
from hpo.engine.checkpoint_files import earlier
from hpo.engine.monitor import Monitor
from hpo.engine.plan import Plan
from hpo.engine.reports import Reporter
from hpo.engine.stepper import Stepper
from hpo.guard.counters import Counters
from hpo.task import saving
from hpo.task.random_state import packed, random_state, set_random_state
from hpo.task.state import flags, set_flags
from objectives import Task

CHECKPOINT_VERSION = 3

_logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """Progress of a training.

    Attributes:
        step: Steps done.
        value: The metric after the last validation.
        seconds: Wall time, summed over interruptions.
    """

    step: int
    value: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a training that have a state of their own."""

    task: Task
    stepper: Stepper
    scaler: torch.amp.GradScaler
    counters: Counters
    monitor: Monitor
    average: Average | None


def save(plan: Plan, parts: Parts, reporter: Reporter, progress: Progress) -> bool:
    """Write everything that the next step depends on to the plan's checkpoint, if it has one.

    Returns:
        True once the file is written; those of earlier attempts are then deleted.
    """
    if plan.checkpoint is None:
        return False
    state = {
        **progress._asdict(),
        "modules": {name: module.state_dict() for name, module in parts.task.modules.items()},
        "optimizer": parts.stepper.state_dict(),
        "scaler": parts.scaler.state_dict(),
        "counters": parts.counters.state_dict(),
        "monitor": parts.monitor.state_dict(),
        "task": parts.task.state_dict(),
        "rng": packed(random_state(plan.device)),
        "flags": flags(parts.task),
        "reporter": reporter.state_dict(),
    }
    if parts.average is not None:
        state["average"] = parts.average.state_dict()
    if not write(plan.checkpoint, plan.about, state):
        return False
    for file in earlier(plan.checkpoint)[1:]:
        file.unlink(missing_ok=True)
    return True


def resume(plan: Plan, parts: Parts, reporter: Reporter) -> Progress | None:
    """Restore the parts from the newest whole checkpoint of the plan's or of earlier attempts.

    Returns:
        None, and no change, if none can be used.
    """
    files = [] if plan.checkpoint is None else earlier(plan.checkpoint)
    read_one = (read(file, plan.about, plan.device) for file in files)
    state = next((state for state in read_one if state is not None), None)
    if state is None or (parts.average is not None and "average" not in state):
        return None
    for name, module in parts.task.modules.items():
        module.load_state_dict(state["modules"][name])
    parts.stepper.load_state_dict(state["optimizer"])
    parts.scaler.load_state_dict(state["scaler"])
    parts.counters.load_state_dict(state["counters"])
    parts.task.load_state_dict(state["task"])
    # Checkpoints of earlier versions have none.
    set_flags(parts.task, state.get("flags", {}))
    set_random_state(state["rng"], plan.device)
    parts.monitor.load_state_dict(state["monitor"])
    if parts.average is not None:
        parts.average.load_state_dict(state["average"])
    reporter.load_state_dict(state.get("reporter", {}))
    return Progress(state["step"], state["value"], state["seconds"])


def write(path: Path, about: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Write a trial's description and its state; return False if that is impossible."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.renamed(path) as file:
            saving.save({"version": CHECKPOINT_VERSION, "about": dict(about), **state}, file)
    except OSError as error:
        _logger.warning("checkpoint %s cannot be written: %s", path, error)
        return False
    return True


def read(path: Path, about: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
    """Read a trial's state; None without a readable file of this trial and version."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        if state["version"] != CHECKPOINT_VERSION or state["about"] != dict(about):
            raise ValueError("it is of another trial or version")
    except Exception as error:
        _logger.warning("checkpoint %s cannot be used, looking further back: %s", path, error)
        return None
    return state
