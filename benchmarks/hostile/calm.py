"""Nothing hostile: a regression that others turn into attacks, and whose values they must have.

Right: six complete trials; the same seed and parameters give the same values in every study.
"""

import torch
from torch import nn

from objectives import Float, Group, Objective, Task, Term

EXIT, CHECK = 0, 0


class CalmTask(Task):
    """A small network whose weights and dropout are drawn from the state that the service seeds."""

    steps_per_epoch = 10

    def __init__(self, params, context):
        self.params, self.context = params, context
        # Of the six trials the second and the fourth, so that each is followed by a calm one.
        self.is_hostile = abs(params["x"] - 0.5) > 0.45
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 1))
        self.modules = {"net": self.net}
        self.groups = [Group(name="net", parameters=list(self.net.parameters()), lr=params["lr"])]

    def batch(self, step):
        seed = 1000 * (self.context.seed % 1000) + step
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))
        return {"x": x, "y": x.sum(1, keepdim=True)}

    def forward(self, batch):
        return self.net(batch["x"])

    def loss(self, outputs, batch):
        return {"mse": Term((outputs - batch["y"]).square().mean())}

    def validate(self):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(7))
        return {"error": float((self.net(x) - x.sum(1, keepdim=True)).square().mean())}


class Calm(Objective):
    """A learning rate, and `x`, which has no effect but on what the hostile ones do."""

    name, metric, direction = "hostile", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-4, high=1e-1, default=1e-2, log=True),
            "x": Float(low=0.0, high=1.0, default=0.2),
        }
    }
    task = CalmTask

    def build(self, params, context):
        return self.task(params, context)


objective = Calm()
