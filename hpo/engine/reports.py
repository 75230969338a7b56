"""Data into and out of the training loop.

Border: plain data and one protocol; `trial` trains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# `Epoch.flat` has these keys besides the metrics; its other training figures hold a dot.
TRAINING_FIGURES = ("loss", "scale", "skipped", "spikes")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Means over some consecutive steps.

    Attributes:
        step: The last of the steps.
        grad_norms: Mean gradient norm by group, before clipping, over the steps in `moved`.
        moved: Number of steps by group with a finite gradient above zero.
        zero: Number of steps by group with a gradient of exactly zero.
        idle: Groups that had no gradient in some steps by construction.
        figures: The task's own figures, from `Task.monitor`.
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
        """The steps as one line of a log."""
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
    """Prediction for one validation sample, as plain data for the record.

    Attributes:
        sample: Number of the sample, from 0.
        kind: Form of display, see `objectives.Prediction`; `error` if there is only an error.
        error: The error that prevented the prediction; None without one.
        latency_s: Time taken; an equal share of it if several samples were predicted at once.
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
    """Results of an epoch and of the validation after it. Epoch 0 is the untrained network.

    Attributes:
        loss: Mean over the epoch's steps; NaN for epoch 0.
        figures: Means of the task's own figures over the epoch's steps.
        grad_norms: Mean gradient norm by group, before clipping, over the steps with a finite
            gradient above zero.
        idle: Groups that had no gradient in some steps by construction.
        scale: The loss scale; 1 without a scaler.
        skipped: Steps withheld from the weights since the trial began.
        spikes: Runs of non-finite steps since then that recovered and were no overflow.
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
        """The epoch as one line of a log."""
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
            # The metrics come last and prevail, as one of them may be called `loss`, too.
            **self.metrics,
        }


class Reporter(Protocol):
    """Receiver of a trial's reports, which may also end the trial."""

    def must_stop(self) -> bool:
        """Return whether to stop now; called before every step."""

    def on_epoch(self, epoch: Epoch) -> bool:
        """Receive an epoch; return whether to prune the trial now."""

    def on_interval(self, interval: Interval) -> None:
        """Receive the means over some steps; optional."""
        return

    def on_phase(self, phase: str) -> None:
        """Receive the part of the task that runs from now on, empty for none; optional."""
        return

    def on_saved(self, step: int) -> None:
        """Learn that a checkpoint holds everything up to this step; optional."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Plain data to keep in the trial's checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned when the checkpoint was written."""
        return

    def on_predictions(self, samples: Sequence[Sample], *, epoch: int, step: int) -> None:
        """Receive predictions made between two epochs' ends; optional."""
        return


def _finite(loss: float) -> str:
    return f"loss {'finite' if math.isfinite(loss) else 'NOT FINITE'} {loss:.4g}"
