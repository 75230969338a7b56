"""What a trial's training is told, and what it tells of its course.

Border: plain data and one protocol; `engine` trains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# What `Epoch.flat` says of an epoch beside its metrics; further names of the kind hold a dot.
TRAINING_FIGURES = ("loss", "scale", "skipped", "spikes")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """What some steps in a row came to, as means.

    Attributes:
        step: The last of them.
        grad_norms: By group, before clipping, over the steps in which it had a finite gradient.
        moved: How many these were, by group.
        zero: In how many steps it was exactly zero.
        idle: Groups that had none in some steps by construction.
        figures: The task's own.
        unmoved: Groups whose gradient has been exactly zero for so long that a warning is due.
    """

    step: int
    steps: int
    loss: float
    grad_norms: Mapping[str, float]
    moved: Mapping[str, int]
    zero: Mapping[str, int]
    idle: frozenset[str] = frozenset()
    scale: float = 1.0
    figures: Mapping[str, float] = field(default_factory=dict)
    unmoved: Sequence[str] = ()

    def line(self) -> str:
        """The steps in one line of a log."""
        norms = ", ".join(f"{name} {self._norm(name)}" for name in self.grad_norms)
        figures = "".join(f" | {name} {value:.3g}" for name, value in self.figures.items())
        return (
            f"step {self.step} | {_finite(self.loss)} | grad norm {norms} | "
            f"scale {self.scale:g}{figures}"
        )

    def _norm(self, group: str) -> str:
        moved, zero = self.moved[group], self.zero[group]
        why = " by construction" if group in self.idle else ""
        cases = {
            f"{self.grad_norms[group]:.3g}": moved,
            f"0{why}": zero,
            "not finite": self.steps - moved - zero,
        }
        found = {text: count for text, count in cases.items() if count}
        if len(found) == 1:
            return next(iter(found))
        return " and ".join(f"{text} in {count}" for text, count in found.items())


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the networks made of one validation sample, as plain data for the record.

    Attributes:
        sample: Its number, 0…
        kind: How it is shown; see `objectives.Prediction`. `error` where there is an error alone.
        error: Why there is no prediction; None where there is one.
        latency_s: What it took, its share where several were asked for at once.
    """

    sample: int
    kind: str
    latency_s: float
    input: Any = None
    target: Any = None
    prediction: Any = None
    score: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch did, and what validation found after it. Epoch 0 is the untrained network.

    Attributes:
        loss: Mean over the epoch's steps; NaN for epoch 0.
        figures: The task's own of its steps, means.
        grad_norms: By group, before clipping; means over the steps with a finite gradient.
        idle: Groups that had none in some steps by construction.
        scale: Of the loss; 1 without a scaler.
        skipped: Steps withheld from the weights since the trial began.
        spikes: Runs of non-finite steps since then that ended by themselves and were no overflow.
        samples: Predictions to keep.
    """

    epoch: int
    epochs: int
    step: int
    metrics: Mapping[str, float]
    loss: float = math.nan
    terms: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    grad_norms: Mapping[str, float] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()
    scale: float = 1.0
    skipped: int = 0
    spikes: int = 0
    samples: Sequence[Sample] = ()

    def line(self) -> str:
        """The epoch in one line of a log."""
        norms = ", ".join(
            f"{name} {norm:.3g}" + " by construction" * (not norm and name in self.idle)
            for name, norm in self.grad_norms.items()
        )
        found = {**self.figures, **self.metrics}
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        return (
            f"epoch {self.epoch}/{self.epochs} | {_finite(self.loss)} | "
            f"grad norm {norms} | scale {self.scale:g} | skipped {self.skipped}"
            f"{f', spikes {self.spikes}' if self.spikes else ''} | {metrics}"
        )

    def flat(self) -> dict[str, float]:
        """All figures by name, for a table."""
        return {
            "loss": self.loss,
            "scale": self.scale,
            "skipped": self.skipped,
            "spikes": self.spikes,
            **{f"loss.{name}": value for name, value in self.terms.items()},
            **{f"monitor.{name}": value for name, value in self.figures.items()},
            **{f"grad_norm.{name}": norm for name, norm in self.grad_norms.items()},
            # Last: one of them may be called `loss`, too.
            **self.metrics,
        }


class Reporter(Protocol):
    """Who hears of a trial's course, and may end it."""

    def must_stop(self) -> bool:
        """Whether to stop after this step; asked at every step."""

    def on_epoch(self, epoch: Epoch) -> bool:
        """Take note of an epoch; whether to prune the trial now."""

    def on_interval(self, interval: Interval) -> None:
        """Take note of some steps; nobody has to."""
        return

    def state_dict(self) -> dict[str, Any]:
        """What is to be kept with the trial's checkpoint; plain data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave when the checkpoint was written."""
        return

    def on_predictions(self, samples: Sequence[Sample], *, epoch: int, step: int) -> None:
        """Keep predictions made between two epochs' ends; nobody has to."""
        return


def _finite(loss: float) -> str:
    return f"loss {'finite' if math.isfinite(loss) else 'NOT FINITE'} {loss:.4g}"
