"""Exponential moving average of the trained weights, used for validation.

    a ← a + (1 − d) (w − a),   d = min(decay, (1 + t) / (10 + t)) after the t-th step

The warm-up of d is what TensorFlow's `ExponentialMovingAverage` calls `num_updates`. Without it the
untrained weights would still hold a share of decay^t.

Border: on the device, with no host synchronisation; `trial` decides which figures use the average.
Buffers, running means for example, remain those of the live module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hpo.task.parameters import trained
from objectives import Task


class Average:
    """Averages of a task's trained parameters, in float32."""

    def __init__(self, task: Task, decay: float) -> None:
        self._task, self._decay = task, decay
        self._weights = trained(task)
        self._averages = [weight.detach().float().clone() for weight in self._weights]

    @torch.no_grad()
    def take(self, taken: Tensor, withhold: Tensor) -> None:
        """Move the averages towards the weights after a step.

        Args:
            taken: Steps that reached the weights, this one included; on the device, (1,).
            withhold: 1 if this step did not reach the weights, else 0.
        """
        steps = taken.float().squeeze(0)
        decay = ((1 + steps) / (10 + steps)).clamp(max=self._decay)
        moved = torch._foreach_sub([weight.float() for weight in self._weights], self._averages)
        torch._foreach_mul_(moved, (1 - decay) * (1 - withhold))
        torch._foreach_add_(self._averages, moved)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the task's modules; restore the weights exactly on exit.

        Values are copied, not storages exchanged: others, such as cuDNN's recurrent layers, may
        hold a weight's memory.
        """
        with torch.no_grad():
            kept = [weight.detach().clone() for weight in self._weights]
            self._put(self._averages)
        try:
            yield
        finally:
            with torch.no_grad():
                self._put(kept)

    def _put(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)

    def modules(self) -> dict[str, dict[str, Tensor]]:
        """State of each module with the averages in it, as copies on the CPU."""
        with self.in_place():
            return module_states(self._task)

    def state_dict(self) -> dict[str, Any]:
        return {"decay": self._decay, "averages": self._averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for average, value in zip(self._averages, state["averages"], strict=True):
            average.copy_(value)


def module_states(task: Task) -> dict[str, dict[str, Tensor]]:
    """State of each module of a task, as copies on the CPU."""

    def copied(value: Any) -> Any:
        # A module's get_extra_state may return anything, not only tensors.
        return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value

    return {
        name: {key: copied(value) for key, value in module.state_dict().items()}
        for name, module in task.modules.items()
    }
