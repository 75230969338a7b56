"""An exponential moving average of the trained weights, which validation is made with.

    a ← a + (1 − d) (w − a),   d = min(decay, (1 + t) / (10 + t)) after the t-th step

The warm-up of d is what TensorFlow's `ExponentialMovingAverage` calls `num_updates`: without it the
untrained weights would still hold a share of decay^t.

Border: on the device, without a word to the host. Which figures are of the averaged weights, the
engine says. Buffers, running means for example, are the live module's.
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
    """The averages of a task's trained parameters, in float32."""

    def __init__(self, task: Task, decay: float) -> None:
        self._task, self._decay = task, decay
        self._weights = trained(task)
        self._averages = [weight.detach().float().clone() for weight in self._weights]

    @torch.no_grad()
    def take(self, taken: Tensor, withhold: Tensor) -> None:
        """Take the weights after a step.

        Args:
            taken: Steps that reached the weights, this one among them; on the device, (1,).
            withhold: 1 where this step did not reach them, else 0.
        """
        steps = taken.float().squeeze(0)
        decay = ((1 + steps) / (10 + steps)).clamp(max=self._decay)
        moved = torch._foreach_sub([weight.float() for weight in self._weights], self._averages)
        torch._foreach_mul_(moved, (1 - decay) * (1 - withhold))
        torch._foreach_add_(self._averages, moved)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the task's modules hold the averages; afterwards they are what they were, exactly.

        By copies, not by exchanging storages: what holds a weight's memory, as cuDNN's recurrent
        layers do, need not know.
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
        """The state of each module with the averages in it, as copies on the CPU."""
        with self.in_place():
            return module_states(self._task)

    def state_dict(self) -> dict[str, Any]:
        return {"decay": self._decay, "averages": self._averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for average, value in zip(self._averages, state["averages"], strict=True):
            average.copy_(value)


def module_states(task: Task) -> dict[str, dict[str, Tensor]]:
    """The state of each module of a task, as copies on the CPU."""

    def copied(value: Any) -> Any:
        # What get_extra_state gave may be anything.
        return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value

    return {
        name: {key: copied(value) for key, value in module.state_dict().items()}
        for name, module in task.modules.items()
    }
