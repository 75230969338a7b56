"""Plan of a task's training, and its result.

Border: plain data; `trial` trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan of a task's training.

    Attributes:
        metric: The key of `validate()` that is reported.
        checkpoint: File to resume from and to keep up to date; None keeps nothing.
        about: Plain-data description of the trial, stored in its checkpoint and its saved step.
        predictions: Number of samples to predict for the record; 0 for none.
        predictions_every: Steps from one record to the next; None for once an epoch.
        schedule: Multiplier of the learning rates by progress, in place of those of the task and of
            its groups.
        timeout_s: Wall time after which the training ends between two steps; None for no limit.
        ema_decay: Decay of the averaged weights to validate; None to validate the live weights. An
            optimizer with train() and eval() has averages of its own, which are validated instead.
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
    timeout_s: float | None = None
    ema_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a trial's training.

    Attributes:
        value: The metric after the last epoch done.
        epochs: Number of epochs done.
        is_pruned: True if the reporter ended the training early.
        is_timed_out: True if its time was over.
        skipped: Steps withheld from the weights.
        spikes: Runs of non-finite steps that recovered and were no overflow.
        seconds: Wall time, summed over interruptions.
        averaged: The modules' states with averaged weights, on the CPU; None without an average.
    """

    value: float
    epochs: int
    is_pruned: bool
    skipped: int
    spikes: int
    seconds: float
    averaged: Mapping[str, Mapping[str, Tensor]] | None = None
    is_timed_out: bool = False
