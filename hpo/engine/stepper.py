"""The optimizer's side of a step: scheduled learning rates, gradient norms, withheld steps.

Border: `trial` computes the gradient, `guard.counters` decides whether it is bad. `own_optimizer`
knows the optimizer that a task returns, `window` the gradients of steps that share one of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from hpo.engine.own_optimizer import (
    has_modes,
    in_eval_mode,
    rates_times,
    start_rates,
)
from hpo.engine.window import Window
from hpo.errors import ObjectiveError
from hpo.task.contract import dtype_faults, group_schedule_faults, optimizer_faults
from objectives import Group, Task


class Stepper:
    """A task's optimizer with its schedule; the default one needs no host synchronisation.

    Attributes:
        optimizer: The task's own, or fused AdamW by default.
        has_modes: True if the optimizer has weights of its own to evaluate (`train()`, `eval()`).

    Raises:
        ObjectiveError: The task's own optimizer steps other parameters than the groups', a group's
            schedule is no factor, or the task trains half-precision parameters that no step can
            train.
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
        if own is not None:
            start_rates(own, task.groups)
        self.has_modes = has_modes(self.optimizer)
        if self.has_modes:
            self.optimizer.train()  # type: ignore[attr-defined]
        self._factors_GS = _factors(task, schedule, steps, device)
        self._lrs_GS = torch.stack(
            [group.lr * f for group, f in zip(task.groups, self._factors_GS, strict=True)]
        )
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self.accumulate = task.accumulate
        parameters = [p for group in task.groups for p in group.parameters]
        self._window = None if self.accumulate == 1 else Window(parameters, self.accumulate, device)

    def begin(self, taken: Tensor) -> None:
        """Clear the gradients and set the learning rates of a step.

        The schedule follows the steps that reached the weights, not the steps tried.
        """
        self.optimizer.zero_grad(set_to_none=True)
        if self._window is not None and self._window.steps:
            return
        self._position = taken.clamp(max=self._lrs_GS.shape[1] - 1)
        if self._is_fused:
            lrs_G = self._lrs_GS.index_select(1, self._position).squeeze(1)
            for group, lr in zip(self.optimizer.param_groups, lrs_G, strict=True):
                group["lr"].copy_(lr)

    def norms(self) -> Tensor:
        """Norm of each group's gradient, (G,); 0 if no parameter has one."""
        norms_G = torch.stack([_norm(group, self._device) for group in self._groups])
        # The loss was divided by the length of the window.
        return norms_G if self._window is None else norms_G * self.accumulate

    def step_unless(
        self, withhold: Tensor, norms_G: Tensor | None, *, is_last: bool = False
    ) -> Tensor | None:
        """Clip and step, but leave the weights unchanged if `withhold` is 1.

        With `accumulate`, a step is taken once in so many calls, or with the trial's last one. It
        is withheld if all of them were.

        The scaler's own step would not do: it checks gradients only, and exists for fp16 only.

        Args:
            norms_G: Norms of the gradients; None for a step that has none.

        Returns:
            1.0 if the weights remained, 0.0 if they were stepped; None if more gradients are due.
        """
        if self._window is not None:
            self._window.add(withhold)
            if not (self._window.is_full or is_last):
                return None
            withhold = self._window.put()
            norms_G = torch.stack([_norm(group, self._device) for group in self._groups])
        if norms_G is not None:
            self._step(withhold, norms_G)
        return withhold

    def _step(self, withhold: Tensor, norms_G: Tensor) -> None:
        for group, norm in zip(self._groups, norms_G, strict=True):
            if math.isfinite(group.clip):
                clip_grads_with_norm_(group.parameters, group.clip, norm)
        if self._is_fused:
            # The fused kernel reads the flag on the device.
            self.optimizer.found_inf = withhold  # type: ignore[attr-defined]
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not withhold.item():
            factors_G = self._factors_GS.index_select(1, self._position).squeeze(1)
            with rates_times(self.optimizer, factors_G):
                self.optimizer.step()

    def evaluating(self) -> AbstractContextManager[None]:
        """Put the weights to evaluate in place of the trained ones, if the optimizer has such."""
        return in_eval_mode(self.optimizer) if self.has_modes else nullcontext()

    def finish(self) -> None:
        """Leave the weights to evaluate in the modules, for good."""
        if self.has_modes:
            self.optimizer.eval()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        window = None if self._window is None else self._window.state_dict()
        own = self.optimizer.state_dict()
        return {"optimizer": own, "window": window, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "window" not in state:
            # An earlier version kept the optimizer's state alone, with the rates of the last step.
            self.optimizer.load_state_dict(dict(state))
            if not self._is_fused:
                start_rates(self.optimizer, self._groups)
            return
        self.optimizer.load_state_dict(state["optimizer"])
        self._position = state["position"]
        if self._window is not None and state["window"] is not None:
            self._window.load_state_dict(state["window"])


def _factors(
    task: Task, schedule: Callable[[float], float] | None, steps: int, device: torch.device
) -> Tensor:
    """Factor of each group's learning rate at each step, (G, S)."""

    def row_S(factor: Callable[[float], float]) -> Tensor:
        positions = [factor(i / steps) for i in range(steps)]
        return torch.tensor(positions, dtype=torch.float32, device=device)

    for fault in () if schedule else group_schedule_faults(task.groups, steps):
        raise ObjectiveError(fault)
    common_S = row_S(schedule or task.schedule)
    own = [None if schedule else group.schedule for group in task.groups]
    return torch.stack([common_S if one is None else row_S(one) for one in own])


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
    try:
        return get_total_norm(gradients, foreach=True)
    except RuntimeError as error:
        if all(gradient.layout == torch.strided for gradient in gradients):
            raise
        raise ObjectiveError(
            f"a gradient in group '{group.name}' is sparse, and neither its norm nor the guard's "
            "checks are defined for it; write nn.Embedding(..., sparse=False)"
        ) from error
