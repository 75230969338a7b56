"""Build a trial's task from what is stored of the trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from objectives import Context, Objective, Params, Task


def context_of(config: Mapping[str, Any], *, seed: int, device: torch.device) -> Context:
    """What a trial with this seed is built for, from the settings of its study."""
    return Context(
        device=device,
        size=config["size"],
        epochs=config["epochs"],
        seed=seed,
        problem_seed=config["problem_seed"],
        options=config["options"],
    )


def plain(params: Params) -> dict[str, Any]:
    """Parameters as Python has them: a numpy number would make a checkpoint unreadable."""
    return {name: v.item() if hasattr(v, "item") else v for name, v in params.items()}


def build(about: Mapping[str, Any], device: torch.device, objective: Objective) -> Task:
    """The task of a trial as its training begins.

    Args:
        about: `study`, the settings of its study; `params`; and `seed`, the trial's.
    """
    torch.manual_seed(about["seed"])
    context = context_of(about["study"], seed=about["seed"], device=device)
    return objective.build(about["params"], context)
