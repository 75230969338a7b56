"""Build a trial's task from the trial's stored description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hpo.errors import ObjectiveError
from hpo.task.random_state import seed_all
from objectives import Context, Objective, Params, Task, bound


def context_of(config: Mapping[str, Any], *, seed: int, device: torch.device) -> Context:
    """Context of a trial with this seed, from its study's configuration."""
    return Context(
        device=device,
        size=config["size"],
        epochs=config["epochs"],
        seed=seed,
        problem_seed=config["problem_seed"],
        options=config["options"],
    )


def plain(params: Params) -> dict[str, Any]:
    """Parameters as plain Python values: a numpy number would make a checkpoint unreadable."""
    return {name: v.item() if hasattr(v, "item") else v for name, v in params.items()}


def load(task: Task, modules: Mapping[str, Any], own: dict[str, Any]) -> None:
    """Load a task's saved state in the order of the engine, which asks for the optimizer first.

    A task may make its scheduler in `optimizer`, and have its state in `state_dict`.
    """
    task.optimizer()
    for name, module in task.modules.items():
        module.load_state_dict(modules[name])
    task.load_state_dict(own)


def build(about: Mapping[str, Any], device: torch.device, objective: Objective) -> Task:
    """Build a trial's task, in its state before the first step.

    Args:
        about: Description of the trial: `study`, its study's configuration; `params`; `seed`.
    """
    seed_all(about["seed"])
    context = context_of(about["study"], seed=about["seed"], device=device)
    task = bound(objective, context.options).build(about["params"], context)
    if not isinstance(task, Task):
        raise ObjectiveError(f"build() gave a {type(task).__name__}; make it an objectives.Task")
    return task
