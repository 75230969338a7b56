"""Fit one weight to a constant: no data, a trial takes milliseconds. For tests and first contact.

A learning rate above 1 / curvature diverges, since a step multiplies the distance from the target
by 1 − 2 · curvature · lr. This shows the guard at work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from objectives import Context, Float, Group, Objective, Params, Task, Term

_TARGET = 3.0


class QuadraticTask(Task):
    """Gradient descent on curvature · (w − 3)²."""

    steps_per_epoch = 8

    def __init__(self, params: Params, context: Context) -> None:
        self._net = nn.Linear(1, 1, bias=False, device=context.device)
        self._one = torch.ones(1, 1, device=context.device)
        self._curvature = float(params["curvature"])
        self.modules = {"net": self._net}
        self.groups = [
            Group(name="weight", parameters=list(self._net.parameters()), lr=params["lr"])
        ]

    def optimizer(self) -> torch.optim.Optimizer:
        group = self.groups[0]
        return torch.optim.SGD(group.parameters, lr=group.lr)

    def batch(self, step: int) -> Tensor:
        return self._one

    def forward(self, batch: Tensor) -> Tensor:
        return torch.as_tensor(self._net(batch))

    def loss(self, outputs: Tensor, batch: Any) -> Mapping[str, Term]:
        return {"distance": Term((outputs - _TARGET).square().mean(), self._curvature)}

    def validate(self) -> Mapping[str, float]:
        return {"distance": float((self._net(self._one) - _TARGET).abs())}


class Quadratic(Objective):
    """The distance of a weight from 3 after gradient descent."""

    name = "quadratic"
    metric = "distance"
    direction = "minimize"
    spaces = {
        "narrow": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
            "curvature": Float(low=0.5, high=2.0, default=1.0),
        },
        "wide": {
            "lr": Float(low=1e-4, high=1e4, default=1e-2, log=True),
            "curvature": Float(low=0.5, high=2.0, default=1.0),
        },
    }

    def build(self, params: Params, context: Context) -> QuadraticTask:
        return QuadraticTask(params, context)


objective = Quadratic()
