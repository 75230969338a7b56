"""The mean gradient of several steps, for which the optimizer takes one step of its own.

Border: on the device, with no host synchronisation; `stepper` decides when a window ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Window:
    """Sum of the gradients since the optimizer's last step; a step that is withheld adds nothing.

    The sums hold unscaled gradients apart from `Parameter.grad`, so that the loss scale may change
    within a window and the guard may use the gradients of the parameters.

    Args:
        length: Steps in a window, by which the loss of each was divided before its backward.

    Attributes:
        steps: Steps in the window so far.
    """

    def __init__(self, parameters: Sequence[Tensor], length: int, device: torch.device) -> None:
        self._parameters, self._length, self._device = parameters, length, device
        self._empty()

    def _empty(self) -> None:
        self.steps = 0
        self._sums: list[Tensor | None] = [None] * len(self._parameters)
        self._good = torch.zeros((), device=self._device)

    @property
    def is_full(self) -> bool:
        return self.steps >= self._length

    @torch.no_grad()
    def add(self, withhold: Tensor) -> None:
        """Add the gradients of a step, unless `withhold` is 1."""
        self.steps += 1
        self._good = self._good + (1 - withhold)
        for i, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            # A NaN times 0 would remain NaN.
            gradient = torch.where(withhold > 0, 0.0, parameter.grad)
            known = self._sums[i]
            self._sums[i] = gradient if known is None else known.add_(gradient)

    @torch.no_grad()
    def put(self) -> Tensor:
        """Set the parameters' gradients to the mean, and empty the window.

        Returns:
            1.0 if every step of the window was withheld, else 0.0.
        """
        share = self._length / self._good.clamp(min=1)
        for parameter, gradient in zip(self._parameters, self._sums, strict=True):
            parameter.grad = None if gradient is None else gradient.mul_(share)
        is_bad = (self._good == 0).float()
        self._empty()
        return is_bad

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "sums": self._sums, "good": self._good}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps, self._sums, self._good = state["steps"], list(state["sums"]), state["good"]
