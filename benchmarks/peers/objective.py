"""The committed task: twelve parameters, twelve epochs, one weight, as an objective of the service.

All trials have the same curve up to their last epoch, so that no pruner ends one and each trial is
twelve reports. The parameters move the last value alone, for the sampler to work on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from objectives import Context, Group, Objective, Params, Task, Term
from peers.space import SPACE, badness

_TARGET, _RATE = 3.0, 0.05


def shown(weight: float) -> float:
    """The reported distance: rounded, since a pruner compares what two programs computed."""
    return round(abs(weight - _TARGET), 6)


class OneWeight(Task):
    """Gradient descent on (w − 3)², one step an epoch."""

    steps_per_epoch = 1

    def __init__(self, params: Params, context: Context) -> None:
        self._net = one_weight(context.device)
        self._one = torch.ones(1, 1, device=context.device)
        self._badness, self._left = badness(params), context.epochs
        self.modules = {"net": self._net}
        self.groups = [Group(name="w", parameters=list(self._net.parameters()), lr=_RATE)]

    def optimizer(self) -> torch.optim.Optimizer:
        return optimizer_of(self._net)

    def batch(self, step: int) -> Tensor:
        self._left -= 1
        return self._one

    def forward(self, batch: Tensor) -> Tensor:
        return torch.as_tensor(self._net(batch))

    def loss(self, outputs: Tensor, batch: Any) -> Mapping[str, Term]:
        return {"distance": Term((outputs - _TARGET).square().mean())}

    def validate(self) -> Mapping[str, float]:
        distance = shown(float(self._net(self._one)))
        return {"distance": distance + (0.0 if self._left else self._badness)}


def one_weight(device: torch.device) -> nn.Linear:
    """The network: its weight begins at zero in every trial."""
    net = nn.Linear(1, 1, bias=False, device=device)
    nn.init.zeros_(net.weight)
    return net


def optimizer_of(net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all peers."""
    return torch.optim.SGD(net.parameters(), lr=_RATE)


class Committed(Objective):
    """The distance of a weight from 3, and a figure of the parameters."""

    name = "committed"
    metric = "distance"
    direction = "minimize"
    spaces = {"narrow": SPACE, "wide": SPACE}

    def build(self, params: Params, context: Context) -> OneWeight:
        return OneWeight(params, context)


objective = Committed()
