"""The optimizer's side of a step: scheduled learning rates, gradient norms, withheld steps.

Border: `trial` computes the gradient, `guard.counters` decides whether it is bad.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from hpo.errors import ObjectiveError
from hpo.task.contract import dtype_faults, optimizer_faults
from objectives import Group, Task


class Stepper:
    """A task's optimizer with its schedule; the default one needs no host synchronisation.

    Attributes:
        optimizer: The task's own, or fused AdamW by default.

    Raises:
        ObjectiveError: The task's own optimizer steps other parameters than the groups', or the
            task trains half-precision parameters that no step can train.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        *,
        steps: int,
        has_scaler: bool,
        schedule: Callable[[float], float] | None = None,
    ) -> None:
        for fault in dtype_faults(task, has_scaler=has_scaler):
            raise ObjectiveError(fault)
        self._groups, self._device = task.groups, device
        own = task.optimizer()
        self._is_fused = own is None
        self.optimizer = own if own is not None else _adamw(task, device)
        for fault in optimizer_faults(own, task):
            raise ObjectiveError(fault)
        multiplier = schedule or task.schedule
        positions = [multiplier(i / steps) for i in range(steps)]
        factors_S = torch.tensor(positions, device=device)
        self._lrs_GS = torch.stack([group.lr * factors_S for group in task.groups])

    def begin(self, taken: Tensor) -> None:
        """Clear the gradients and set the learning rates of a step.

        The schedule follows the steps that reached the weights, not the steps tried.
        """
        self.optimizer.zero_grad(set_to_none=True)
        position = taken.clamp(max=self._lrs_GS.shape[1] - 1)
        lrs_G = self._lrs_GS.index_select(1, position).squeeze(1)
        for group, lr in zip(self.optimizer.param_groups, lrs_G, strict=True):
            if self._is_fused:
                group["lr"].copy_(lr)
            else:
                group["lr"] = lr.item()

    def norms(self) -> Tensor:
        """Norm of each group's gradient, (G,); 0 if no parameter has one."""
        return torch.stack([_norm(group, self._device) for group in self._groups])

    def step_unless(self, withhold: Tensor, norms_G: Tensor) -> None:
        """Clip and step, but leave the weights unchanged if `withhold` is 1.

        The scaler's own step would not do: it checks gradients only, and exists for fp16 only.
        """
        for group, norm in zip(self._groups, norms_G, strict=True):
            if math.isfinite(group.clip):
                clip_grads_with_norm_(group.parameters, group.clip, norm)
        if self._is_fused:
            # The fused kernel reads the flag on the device.
            self.optimizer.found_inf = withhold  # type: ignore[attr-defined]
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not withhold.item():
            self.optimizer.step()


def _adamw(task: Task, device: torch.device) -> torch.optim.Optimizer:
    """Fused AdamW, which takes the rate and found_inf on the device, so that no step waits."""
    groups = [
        {
            "params": list(group.parameters),
            "lr": torch.tensor(group.lr, device=device),
            "weight_decay": group.weight_decay,
        }
        for group in task.groups
    ]
    return torch.optim.AdamW(groups, fused=True)


def _norm(group: Group, device: torch.device) -> Tensor:
    """Norm of a group's gradient; 0 if no parameter has one."""
    gradients = [p.grad for p in group.parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=device)
    return get_total_norm(gradients, foreach=True)
