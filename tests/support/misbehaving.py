"""An objective whose parameter `where` says which of its hooks misbehaves; for `--enqueue`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from objectives import Choice, Context, Group, Objective, Params, Task, Term, Trial

FINE = "nowhere"
WRONG = ("suggest", "build", "batch", "loss", "validate", "missing", "text")
WHERE = (FINE, *WRONG, "memory", "nan")


class MisbehavingTask(Task):
    """A regression of one weight."""

    steps_per_epoch = 8

    def __init__(self, params: Params, context: Context) -> None:
        self._where = params["where"]
        self._raise("build")
        self._net = nn.Linear(2, 1)
        self.modules = {"net": self._net}
        self.groups = [Group(name="all", parameters=list(self._net.parameters()), lr=1e-2)]

    def _raise(self, hook: str) -> None:
        if self._where == hook:
            raise ValueError(f"{hook} is\nbroken")

    def batch(self, step: int) -> Tensor:
        self._raise("batch")
        if self._where == "memory":
            # 256 TiB: more than an address space holds.
            torch.empty(1 << 48)
        return torch.randn(4, 2, generator=torch.Generator().manual_seed(step))

    def forward(self, batch: Tensor) -> Tensor:
        return torch.as_tensor(self._net(batch))

    def loss(self, outputs: Tensor, batch: Tensor) -> Mapping[str, Term]:
        self._raise("loss")
        return {"misfit": Term((outputs - batch.sum(1, keepdim=True)).square().mean())}

    def validate(self) -> Mapping[str, Any]:
        self._raise("validate")
        if self._where == "missing":
            return {"other": 1.0}
        value = float(self._net.weight.detach().square().sum())
        return {"error": {"text": "good", "nan": float("nan")}.get(self._where, value)}


class Misbehaving(Objective):
    """The size of a weight."""

    name = "misbehaving"
    metric = "error"
    direction = "minimize"
    sizes = ("tiny",)
    spaces = {"wide": {"where": Choice(choices=WHERE, default=FINE)}}

    def suggest(self, trial: Trial, space: str) -> Params:
        params = super().suggest(trial, space)
        if params["where"] == "suggest":
            raise ValueError("suggest is\nbroken")
        return params

    def build(self, params: Params, context: Context) -> MisbehavingTask:
        return MisbehavingTask(params, context)


objective = Misbehaving()
