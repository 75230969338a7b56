"""Suggests `log_lr` and returns `lr`, while space and defaults speak of `lr`: the enqueued default configuration is ignored.
Right: exit 2 before any trial, saying that `suggest` never asks for `lr` (of the space) but for `log_lr`. Wrong: 6
COMPLETE with a random first trial that is reported as "default configuration (the first trial)", and `--set lr=`,
`--range` and recorded parameters that do not describe what was trained.
"""

import torch
from torch import nn

from objectives import Float, Group, Objective, Task, Term

EXIT = 2
SAYS = "log_lr"
STATES = {"COMPLETE": 0, "PRUNED": 0, "FAIL": 0}

TRUTH = torch.tensor([1.0, -2.0, 3.0, 0.5])


def points(count, *seed, device):
    generator = torch.Generator().manual_seed(hash(seed))
    x = torch.randn(count, 4, generator=generator, dtype=torch.float32)
    y = x @ TRUTH + 0.1 * torch.randn(count, generator=generator, dtype=torch.float32)
    return {"x": x.to(device), "y": y.to(device)}


class Line(Task):
    steps_per_epoch = 20

    def __init__(self, params, context):
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
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_false_baseline", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
        }
    }

    def suggest(self, trial, space):
        return {"lr": 10 ** trial.suggest_float("log_lr", -4, -1)}

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
