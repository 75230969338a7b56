"""Counters of bad steps, on the device, with no host synchronisation between two reads.

Border: counts only; `verdict` interprets them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpo.guard.verdict import STALL_AFTER, Reading

# 64 reads hold the scaler's history over 512 steps, at one read in 8 steps.
_HISTORY = 64


class Counters:
    """Counts of a trial's steps.

    A step is bad if its loss or a gradient is not finite; it is then withheld from the weights.
    Under a scaler, a bad step with a finite loss is an overflow. Any other bad step makes its run
    a spike, which is counted if the run recovers.

    Attributes:
        history: (step, loss scale, steps withheld so far) at the last reads.
    """

    def __init__(self, device: torch.device, *, has_scaler: bool) -> None:
        # The entries are the length of the current run of bad steps, 1 if a spike is in it, the
        # spikes that recovered, the steps withheld, and 1 if the last loss was not finite.
        self._counts = torch.zeros(5, dtype=torch.int64, device=device)
        self._has_scaler = has_scaler
        self._step = self._early = 0
        self.history: deque[tuple[int, float, int]] = deque(maxlen=_HISTORY)

    def observe(self, loss: Tensor, norms_G: Tensor) -> Tensor:
        """Count a step by its loss and gradient norms; return 1.0 to withhold it, else 0.0."""
        self._step += 1
        run, spike, spikes, withheld, _ = self._counts.unbind()
        # x − x is NaN if x is not finite, and NaN ≠ 0: this takes half the kernels of isfinite.
        is_bad_loss = (loss - loss).ne(0)
        bad = is_bad_loss | (norms_G - norms_G).sum().ne(0)
        is_spike = (is_bad_loss if self._has_scaler else bad) | spike.bool()
        counts = (
            (run + 1) * bad,
            is_spike & bad,
            spikes + (is_spike & ~bad),
            withheld + bad,
            is_bad_loss,
        )
        self._counts = torch.stack(counts)
        return bad.float()

    @property
    def taken(self) -> Tensor:
        """Optimizer steps that reached the weights, on the device, shape (1,)."""
        return self._step - self._counts[3:4]

    def read(self, scale: Tensor) -> Reading:
        """Read the counts and the loss scale, with one synchronisation."""
        figures = torch.cat((self._counts.double(), scale.double().view(1))).tolist()
        run, _, spikes, withheld, is_bad_loss = (int(n) for n in figures[:5])
        if self._step <= STALL_AFTER:
            self._early = withheld
        self.history.append((self._step, figures[5], withheld))
        return Reading(
            step=self._step,
            run=run,
            withheld=withheld,
            early=self._early,
            spikes=spikes,
            is_bad_loss=bool(is_bad_loss),
            scale=figures[5] if self._has_scaler else None,
        )

    def withheld(self) -> int:
        """Steps that did not reach the weights; takes one synchronisation."""
        return int(self._counts[3])

    def spikes(self) -> int:
        """Runs of bad steps that recovered and were no overflow; takes one synchronisation."""
        return int(self._counts[2])

    def state_dict(self) -> dict[str, Any]:
        return {
            "counts": self._counts,
            "step": self._step,
            "early": self._early,
            "history": [list(entry) for entry in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._counts.copy_(state["counts"])
        self._step, self._early = state["step"], state["early"]
        self.history.extend((int(s), float(x), int(w)) for s, x, w in state["history"])
