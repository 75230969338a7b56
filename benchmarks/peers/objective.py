"""The committed task: twelve parameters, twelve epochs, one weight, as an objective of the service.

All trials have the same curve up to their last epoch, so that no pruner ends one and each trial is
twelve reports. The parameters move the last value alone, for the sampler to work on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from objectives import Choice, Context, Float, Group, Int, Objective, Params, Space, Task, Term

EPOCHS = 12
SPACE: Space = {
    **{f"log{n}": Float(low=1e-5, high=1e-1, default=1e-3, log=True) for n in range(3)},
    **{f"float{n}": Float(low=-1.0, high=1.0, default=0.0) for n in range(5)},
    **{f"int{n}": Int(low=1, high=64, default=8) for n in range(2)},
    **{f"choice{n}": Choice(choices=("a", "b", "c"), default="a") for n in range(2)},
}
_TARGET, _RATE = 3.0, 0.05


def drawn(rng: random.Random) -> dict[str, Any]:
    """A configuration drawn evenly from the space."""
    found: dict[str, Any] = {}
    for name, spec in SPACE.items():
        if isinstance(spec, Choice):
            found[name] = rng.choice(spec.choices)
        elif isinstance(spec, Int):
            found[name] = rng.randint(spec.low, spec.high)
        elif spec.log:
            found[name] = math.exp(rng.uniform(math.log(spec.low), math.log(spec.high)))
        else:
            found[name] = rng.uniform(spec.low, spec.high)
    return found


def badness(params: Mapping[str, Any]) -> float:
    """The share of a trial's value that its parameters decide, smallest within the space."""
    found = 0.0
    for name, value in params.items():
        if name.startswith("log"):
            found += (math.log10(value) + 3.0) ** 2 / 4
        elif name.startswith("float"):
            found += (value - 0.3) ** 2
        elif name.startswith("int"):
            found += ((value - 20) / 64) ** 2
        else:
            found += {"a": 0.2, "b": 0.0, "c": 0.4}[value]
    return found


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
