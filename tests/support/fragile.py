"""An objective that breaks in the way that `--fault` names; for tests through the real program."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from objectives import Context, Float, Group, Objective, Option, Params, Task, Term


class FragileTask(Task):
    """A linear regression; its outputs are `gain` times too large and are divided again."""

    steps_per_epoch = 8

    def __init__(self, params: Params, context: Context) -> None:
        self._gain, self._context = float(params["gain"]), context
        self._net = nn.Linear(3, 1, device=context.device)
        self.modules = {"net": self._net}
        self.groups = [Group(name="all", parameters=list(self._net.parameters()), lr=1e-2)]
        self._fault = context.options["fault"]
        self._pause_s = float(context.options["pause_s"])
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]

    def batch(self, step: int) -> dict[str, Tensor]:
        time.sleep(self._pause_s)
        self._steps = step
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 3, generator=generator)
        y = x.sum(1, keepdim=True)
        if self._fault == "batch" and step >= 4:
            x[0, 0] = math.nan
        return {"x": x.to(self._context.device), "y": y.to(self._context.device)}

    def forward(self, batch: Any) -> Tensor:
        if self._fault == "fp16":
            return torch.as_tensor(self._net(batch["x"] * self._gain))
        return torch.as_tensor(self._net(batch["x"]))

    def loss(self, outputs: Tensor, batch: Any) -> Mapping[str, Term]:
        gain = self._gain if self._fault == "fp16" else 1.0
        terms = {"misfit": Term((outputs / gain - batch["y"]).square().mean())}
        if self._fault == "root" and self._steps >= 4:
            terms["root"] = Term((outputs * 0).square().sum().sqrt())
        if self._fault == "turns" and self._steps % 2:
            terms["turns"] = Term(outputs.sum() * math.inf)
        return terms

    def validate(self) -> Mapping[str, float]:
        x = torch.randn(64, 3, generator=torch.Generator().manual_seed(-1))
        x = x.to(self._context.device)
        error = (self._net(x) - x.sum(1, keepdim=True)).square().mean()
        if self._fault == "metric" and self._steps >= 8:
            error = (error * 0 - 1).sqrt()
        return {"error": float(error)}


class Fragile(Objective):
    """The error of a small regression."""

    name = "fragile"
    metric = "error"
    direction = "minimize"
    sizes = ("tiny",)
    # Above 65,504 fp16 overflows; bf16 and fp32 do not.
    spaces = {"wide": {"gain": Float(low=1.0, high=1e9, default=1e6, log=True)}}
    options = {
        "fault": Option(
            default="none", choices=("none", "batch", "root", "turns", "metric", "fp16")
        ),
        "pause_s": Option(default="0"),
    }

    def build(self, params: Params, context: Context) -> FragileTask:
        return FragileTask(params, context)


objective = Fragile()
