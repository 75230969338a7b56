"""Verdict on non-finite steps: a small pure state machine from counter readings to a prune reason.

Overflows of the loss scaler are normal. The same batch once more in fp32 distinguishes them from a
true divergence. A run of bad steps leads to that probe, and the probe decides:

    clear ──run >= 4 at a read──> suspect ──probe in fp32──> loss_nonfinite
      ^                              │                       grad_nonfinite
      │                              ├──clean in fp32 alone──> precision_range
      └────────────clean─────────────┴──but no scale is to blame──> stalled

A run that recovers before the guard has seen four of its steps is a spike: counted, never pruned.

Border: no torch, no device; `counters` measures, `forensics` probes and explains.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

# One host synchronisation in 8 steps does not slow training noticeably. A NaN lives 16 steps at
# most: if one read sees fewer than 4 bad steps, the read 8 steps later sees at least 4.
READ_EVERY = 8
# Up to three bad steps in a row may be one bad batch and its aftermath, or the scaler's search.
SUSPECT_RUN = 4
# A scale may fall below 1: at 2⁻¹⁴ gradients of 1e9 still fit into fp16. At a lower scale ordinary
# gradients, of order 1, would fall below fp16's smallest normal number, which is 2⁻¹⁴.
SCALE_FLOOR = 2.0**-14
# The stall limits are a backstop for what no probe explains. A scaler that falls from 65,536 to its
# floor skips 30 steps, and may need them again after some steps that fit.
STALL_AFTER = 100
STALL_EARLY = 45
STALL_SHARE = 0.9
# Fewer skips are too few for a share: one bad batch in 12 may fall twice into 20 steps.
STALL_LEAST = 10

# These prune reasons mean that a trial's numbers became non-finite.
NONFINITE = ("loss_nonfinite", "grad_nonfinite", "metric_nonfinite", "precision_range", "stalled")


class Reading(NamedTuple):
    """Values of the counters after a step.

    Attributes:
        step: Steps done since the trial began.
        run: Bad steps in a row up to now, with a non-finite loss or gradient.
        withheld: Steps that did not reach the weights, which are all bad ones.
        early: Steps withheld among about the first 100, in which the scaler may search.
        spikes: Runs of bad steps that no scaler explains and that recovered.
        is_bad_loss: True if the last step's loss was not finite.
        scale: The loss scale; None without a scaler.
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
        """Share of the steps after the first 100 that reached the weights."""
        return 1 - (self.withheld - self.early) / max(1, self.step - STALL_AFTER)

    @property
    def is_stalled(self) -> bool:
        is_late = self.withheld - self.early >= STALL_LEAST and self.late_share < STALL_SHARE
        return is_late or self.early >= STALL_EARLY


class Found(Enum):
    """Result of one forward and backward of a batch."""

    CLEAN = "clean"
    LOSS = "loss"
    GRADIENT = "gradient"


class Probed(NamedTuple):
    """Results of a batch in fp32, and in the training precision at the scaler's floor."""

    fp32: Found
    own: Found


def verdict(reading: Reading, probed: Probed | None) -> str | None:
    """The reason to prune a trial; None to go on.

    Args:
        probed: Result of the probe; None if the reading is not suspect, or the probe failed.
    """
    if probed is not None:
        if probed.fp32 is not Found.CLEAN:
            return "loss_nonfinite" if probed.fp32 is Found.LOSS else "grad_nonfinite"
        if probed.own is not Found.CLEAN:
            return "precision_range"
        # The batch alone is finite, and no loss scale explains why its step was not.
        if reading.is_bad_loss or reading.scale is None or reading.scale < SCALE_FLOOR:
            return "stalled"
    return "stalled" if reading.is_stalled else None
