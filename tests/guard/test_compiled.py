"""Compiled networks: the guard explains their divergence as that of the same plain network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.guard.evidence import Divergence
from hpo.guard.replay import replay
from objectives import Group, Objective
from tests.support.toys import CPU, Log, ToyTask


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.GELU())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.body(x)
        # The derivative of the root at 0 is infinite, and 0 times that is NaN.
        return self.head(hidden + (hidden * 0.0).square().sum().sqrt())


class Compiled(ToyTask):
    def __init__(self, how: str) -> None:
        super().__init__()
        net = Net()
        if how == "module":
            net = torch.compile(net, backend="eager")
        elif how == "method":
            net.compile(backend="eager")
        self.net, self.modules = net, {"net": net}
        self.groups = [Group(name="all", parameters=list(net.parameters()), lr=1e-2)]
        self.call = torch.compile(lambda x: net(x), backend="eager") if how == "function" else net

    def forward(self, batch):
        return self.call(batch["x"])

    def validate(self):
        return {"error": float(self.net(torch.ones(3, 4)).square().mean())}


class Objects(Objective):
    name, metric, direction = "compiled", "error", "minimize"
    spaces = {"wide": {}}

    def build(self, params, context):
        return Compiled(params["how"])


def divergence(how: str) -> Divergence:
    about = {
        "study": {"objective": "-", "size": "tiny", "epochs": 1, "problem_seed": 0, "options": {}},
        "trial": 0,
        "params": {"how": how},
        "seed": 0,
    }
    plan = Plan(epochs=1, precision="fp32", device=CPU, metric="error", about=about)
    with pytest.raises(Divergence) as raised:
        engine.train(Compiled(how), plan, Log())
    return raised.value


@pytest.mark.parametrize("how", ["module", "method", "function"])
def test_a_compiled_networks_divergence_is_explained_and_replayed_as_a_plain_ones(how):
    torch._dynamo.reset()
    plain = divergence("plain")

    found = divergence(how)
    again = replay(found.saved, Objects(), device=CPU)

    assert plain.reason == found.reason == again.reason == "grad_nonfinite"
    assert found.detail == again.detail == plain.detail
    assert "'net.body.0.weight'" in found.detail
    assert "backward of sqrt in 'net' at test_compiled.py" in found.detail
