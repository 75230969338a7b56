"""What a trial's training is told, and what it tells of its course.

Border: plain data and one protocol; `engine` trains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a task is trained.

    Attributes:
        metric: The key of `validate()` that is reported.
        checkpoint: File to resume from and to keep up to date; None keeps nothing.
        about: What the trial is, plain data, kept in its checkpoint and its saved step.
    """

    epochs: int
    precision: str
    device: torch.device
    metric: str
    checkpoint: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch did, and what validation found after it. Epoch 0 is the untrained network.

    Attributes:
        loss: Mean over the epoch's steps; NaN for epoch 0.
        grad_norms: By group, of the epoch's last step, before clipping.
        scale: Of the loss; 1 without a scaler.
        skipped: Steps withheld from the weights since the trial began.
        spikes: Runs of non-finite steps since then that ended by themselves and were no overflow.
    """

    epoch: int
    epochs: int
    step: int
    metrics: Mapping[str, float]
    loss: float = math.nan
    terms: Mapping[str, float] = field(default_factory=dict)
    grad_norms: Mapping[str, float] = field(default_factory=dict)
    scale: float = 1.0
    skipped: int = 0
    spikes: int = 0

    def line(self) -> str:
        """The epoch in one line of a log."""
        finite = "finite" if math.isfinite(self.loss) else "NOT FINITE"
        norms = ", ".join(f"{name} {norm:.3g}" for name, norm in self.grad_norms.items())
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return (
            f"epoch {self.epoch}/{self.epochs} | loss {finite} {self.loss:.4g} | "
            f"grad norm {norms} | scale {self.scale:g} | skipped {self.skipped}"
            f"{f', spikes {self.spikes}' if self.spikes else ''} | {metrics}"
        )

    def flat(self) -> dict[str, float]:
        """All figures by name, for a table."""
        return {
            **self.metrics,
            "loss": self.loss,
            "scale": self.scale,
            "skipped": self.skipped,
            "spikes": self.spikes,
            **{f"loss.{name}": value for name, value in self.terms.items()},
            **{f"grad_norm.{name}": norm for name, norm in self.grad_norms.items()},
        }


class Reporter(Protocol):
    """Who hears of a trial's course, and may end it."""

    def must_stop(self) -> bool:
        """Whether to stop after this step; asked at every step."""

    def report(self, epoch: Epoch) -> bool:
        """Take note of an epoch; whether to prune the trial now."""


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
    """

    value: float
    epochs: int
    is_pruned: bool
    skipped: int
    spikes: int
    seconds: float
