"""Its validation leaves process-wide switches on: default dtype, deterministic mode, warnings as errors, a deleted cwd.
Right: exit 0, 6 COMPLETE: each trial, and the service between them, finds the process as the first did (`build` raises
if not), no warning of torch or Optuna becomes an error, and nothing needs the current directory.
"""

import os
import tempfile
import warnings

import torch
from torch import nn

from objectives import Float, Group, Objective, Task, Term

EXIT = 0
STATES = {"COMPLETE": 6, "PRUNED": 0, "FAIL": 0}

TRUTH = torch.tensor([1.0, -2.0, 3.0, 0.5])
BEFORE = []


def switches():
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = "deleted"
    strict = ("error", None, Warning, None, 0) in warnings.filters
    deterministic = torch.are_deterministic_algorithms_enabled()
    return torch.get_default_dtype(), folder, deterministic, strict


def points(count, *seed, device):
    generator = torch.Generator().manual_seed(hash(seed))
    x = torch.randn(count, 4, generator=generator, dtype=torch.float32)
    y = x @ TRUTH + 0.1 * torch.randn(count, generator=generator, dtype=torch.float32)
    return {"x": x.to(device), "y": y.to(device)}


class Line(Task):
    steps_per_epoch = 20

    def __init__(self, params, context):
        BEFORE.append(switches())
        if BEFORE[-1] != BEFORE[0]:
            raise RuntimeError(f"left by another trial: {BEFORE[-1]}, at first {BEFORE[0]}")
        self.params, self.context = params, context
        net = nn.Linear(4, 1).to(context.device)
        self.modules = {"net": net}
        self.groups = [Group(name="net", parameters=list(net.parameters()), lr=params["lr"])]

    def batch(self, step):
        return points(32, self.context.seed, step, device=self.context.device)

    def forward(self, batch):
        return self.modules["net"](batch["x"]).squeeze(1)

    def loss(self, outputs, batch):
        return {"mse": Term(nn.functional.mse_loss(outputs, batch["y"]))}

    def validate(self):
        torch.set_default_dtype(torch.float64)  # "figures in double"
        torch.use_deterministic_algorithms(True)
        warnings.simplefilter("error")
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_leaked_switches", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
