"""Keeps its data set in the module and rescales it in place in `forward`: each step, trial and resume finds smaller inputs.
Right: exit 0, 6 COMPLETE with the SAME value (nothing that counts is drawn or depends on the trial's seed), as each trial
has a fresh module; or else it says that batch(step) of the same step is not the same twice. Wrong: six other values.
"""

import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term

EXIT = 0
CHECK_SAYS = "differ"
STATES = {"COMPLETE": 6, "PRUNED": 0, "FAIL": 0}

TRUTH = torch.tensor([1.0, -2.0, 3.0, 0.5])
SAME_VALUE = True  # of all trials
DATA = {}


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
        nn.init.zeros_(net.weight)
        nn.init.zeros_(net.bias)
        if not DATA:
            DATA.update(points(640, context.problem_seed, 1, device=context.device))
        self.modules = {"net": net}
        self.groups = [Group(name="net", parameters=list(net.parameters()), lr=params["lr"])]

    def batch(self, step):
        rows = slice(step % 20 * 32, step % 20 * 32 + 32)
        return {name: value[rows] for name, value in DATA.items()}

    def forward(self, batch):
        inputs = batch["x"].mul_(0.8) if self.modules["net"].training else batch["x"]
        return self.modules["net"](inputs).squeeze(1)

    def loss(self, outputs, batch):
        return {"mse": Term(nn.functional.mse_loss(outputs, batch["y"]))}

    def validate(self):
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_inplace_data", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Choice(choices=(3e-2,), default=3e-2),
            "unused": Float(low=0.0, high=1.0, default=0.5),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
