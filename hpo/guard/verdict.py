"""The verdict on non-finite steps, as a small pure state machine: figures in, a reason out.

Overflows of the loss scaler are normal. What tells them from a true divergence is the same batch
once more in fp32. A run of bad steps leads to that probe, and the probe decides:

    clear ──run >= 4 at a read──> suspect ──probe in fp32──> loss_nonfinite
      ^                              │                       grad_nonfinite
      │                              ├──clean in fp32 alone──> precision_range
      └────────────clean─────────────┴──but no scale is to blame──> stalled

A run that ends by itself before the guard has seen four of its steps is a spike: counted, never
pruned. Border: no torch, no device; `counters` measures, `forensics` probes and explains.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

# One host synchronisation in 8 steps is invisible beside training; a NaN lives 16 steps at most:
# the read that sees fewer than 4 bad steps is followed by one that sees 4 more.
READ_EVERY = 8
# Up to three bad steps in a row may be one bad batch and its aftermath, or the scaler's search.
SUSPECT_RUN = 4
# A scaler may go below 1: gradients of 1e9 fit into fp16 at this scale. At a lower one ordinary
# gradients, of order 1, would fall below fp16's smallest normal number, which this is.
SCALE_FLOOR = 2.0**-14
# Backstop, for what no probe explains. A scaler that comes down from 65,536 to its floor skips 30
# steps, and may be granted them again after some that fit.
STALL_AFTER = 100
STALL_EARLY = 45
STALL_SHARE = 0.9
# So few are no share yet: one bad batch in 12 may fall twice into the first 20 steps.
STALL_LEAST = 10

# Prune reasons that say that a trial's numbers left the finite ones.
NONFINITE = ("loss_nonfinite", "grad_nonfinite", "metric_nonfinite", "precision_range", "stalled")


class Reading(NamedTuple):
    """What the counters say after a step.

    Attributes:
        step: Steps done since the trial began.
        run: Bad steps in a row up to now: loss or a gradient was not finite.
        withheld: Steps that did not reach the weights: all bad ones.
        early: What was withheld of about the first 100 steps, in which the scaler may search.
        spikes: Runs of bad steps that no scaler explains and that ended by themselves.
        is_bad_loss: Whether the last step's loss was not finite.
        scale: The loss scale; None where there is no scaler.
    """

    step: int
    run: int
    withheld: int
    early: int
    spikes: int
    is_bad_loss: bool
    scale: float | None

    @property
    def is_suspect(self) -> bool:
        return self.run >= SUSPECT_RUN

    @property
    def late_share(self) -> float:
        """The share of the steps after the first 100 that reached the weights."""
        return 1 - (self.withheld - self.early) / max(1, self.step - STALL_AFTER)

    @property
    def is_stalled(self) -> bool:
        is_late = self.withheld - self.early >= STALL_LEAST and self.late_share < STALL_SHARE
        return is_late or self.early >= STALL_EARLY


class Found(Enum):
    """What one forward and backward of a batch gave."""

    CLEAN = "clean"
    LOSS = "loss"
    GRADIENT = "gradient"


class Probed(NamedTuple):
    """A batch in fp32, and in the precision trained in with the loss at the scaler's floor."""

    fp32: Found
    own: Found


def verdict(reading: Reading, probed: Probed | None) -> str | None:
    """The reason to prune a trial for; None to go on.

    Args:
        probed: What the probe found; it is made when the reading is suspect, and only then.
    """
    if probed is not None:
        if probed.fp32 is not Found.CLEAN:
            return "loss_nonfinite" if probed.fp32 is Found.LOSS else "grad_nonfinite"
        if probed.own is not Found.CLEAN:
            return "precision_range"
        # The batch alone is finite, and yet its step was not for a reason that is no scale's.
        if reading.is_bad_loss or reading.scale is None or reading.scale < SCALE_FLOOR:
            return "stalled"
    return "stalled" if reading.is_stalled else None
