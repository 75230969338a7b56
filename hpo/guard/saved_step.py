"""Saved step: pack everything that a diverged step depends on, and restore it from the file.

Border: judges nothing; the worker decides where the file is kept.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpo.errors import ConfigurationError
from hpo.guard.verdict import Reading
from hpo.task.build import build, load
from hpo.task.random_state import packed
from hpo.task.tensors import map_tensors, named_tensors
from objectives import Objective, Task

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Conditions that a step ran under.

    Attributes:
        about: Description of the trial, as `task.build` takes it: study, params, seed, trial.
    """

    device: torch.device
    precision: str
    metric: str
    about: Mapping[str, Any]


def pack(
    task: Task,
    batch: Any,
    setting: Setting,
    *,
    reason: str,
    reading: Reading,
    rng: Mapping[str, Any],
) -> dict[str, Any]:
    """Pack all that a step depends on into plain data and tensors that `weights_only=True` loads.

    Only the batch's tensors are kept, by path; `Task.batch` makes the rest again.
    """

    def compact(tree: Any) -> Any:
        # torch.save writes the whole storage of a view: a slice would bring its whole data set.
        return map_tensors(tree, lambda _, tensor: tensor.detach().cpu().contiguous().clone())

    return {
        "version": _VERSION,
        "about": dict(setting.about),
        "precision": setting.precision,
        "metric": setting.metric,
        "reason": reason,
        "reading": list(reading),
        "rng": packed(rng),
        "modules": compact({n: dict(module.state_dict()) for n, module in task.modules.items()}),
        "task": compact(task.state_dict()),
        "batch": compact(named_tensors(batch)),
    }


def read(content: bytes, name: str) -> dict[str, Any]:
    """Load a saved step from a file's content.

    Raises:
        ConfigurationError: The content is no saved step, or another version wrote it.
    """
    try:
        saved: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
        version = saved["version"]
    except Exception as error:
        # torch's own message is left out, as it advises to load the file unsafely.
        raise ConfigurationError(
            f"{name} is no saved step of a trial: it is cut off, damaged or another kind of file"
        ) from error
    if version != _VERSION:
        raise ConfigurationError(
            f"{name} was written by another version of hpo (its format is {version}, this "
            f"program reads {_VERSION})"
        )
    return saved


def restore(saved: Mapping[str, Any], device: torch.device, objective: Objective) -> Task:
    """Rebuild the task of a saved step, with the weights that the step started from.

    Raises:
        ConfigurationError: The objective cannot build the task, or builds another network.
    """
    try:
        task = build(saved["about"], device, objective)
    except Exception as error:
        raise ConfigurationError(
            f"the objective '{objective.name}' cannot be built with the saved trial's parameters "
            f"{dict(saved['about']['params'])}: {type(error).__name__}: {error} (--objective)"
        ) from error
    try:
        load(task, saved["modules"], saved["task"])
    except (RuntimeError, KeyError) as error:
        lines = str(error).splitlines()
        raise ConfigurationError(
            f"the saved weights do not fit what the objective '{objective.name}' builds: "
            f"{lines[-1].strip() if lines else error!r}; replay the step with the objective as it "
            "was (--objective)"
        ) from error
    return task


def with_tensors(batch: Any, saved: Mapping[str, Tensor], device: torch.device) -> Any:
    """Replace the batch's tensors with the saved ones."""
    if set(named_tensors(batch)) != set(saved):
        raise ConfigurationError(
            f"the objective's batches hold {sorted(named_tensors(batch))}, the saved step "
            f"{sorted(saved)}; replay it with the objective that it was saved with"
        )
    return map_tensors(batch, lambda path, _: saved[path].to(device))
