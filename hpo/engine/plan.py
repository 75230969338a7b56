"""How a task is to be trained, and how its training ended.

Border: plain data; `trial` trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a task is trained.

    Attributes:
        metric: The key of `validate()` that is reported.
        checkpoint: File to resume from and to keep up to date; None keeps nothing.
        about: What the trial is, plain data, kept in its checkpoint and its saved step.
        predictions: Samples to predict for the record; 0 for none.
        predictions_every: Steps from one record to the next; None for once an epoch.
        schedule: The learning rates' multiplier by progress, in place of the task's own.
        ema_decay: Of the average of the weights that is validated; None for the weights themselves.
    """

    epochs: int
    precision: str
    device: torch.device
    metric: str
    checkpoint: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    predictions: int = 0
    predictions_every: int | None = None
    schedule: Callable[[float], float] | None = None
    ema_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial's training ended.

    Attributes:
        value: The metric after the last epoch done.
        epochs: How many were done.
        is_pruned: Whether the reporter ended it early.
        skipped: Steps withheld from the weights.
        spikes: Runs of non-finite steps that ended by themselves and were no overflow.
        seconds: Wall time, over interruptions.
        averaged: The modules' states with averaged weights, on the CPU; None without an average.
    """

    value: float
    epochs: int
    is_pruned: bool
    skipped: int
    spikes: int
    seconds: float
    averaged: Mapping[str, Mapping[str, Tensor]] | None = None
