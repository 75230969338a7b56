"""Rates by a ratio in dB over rows that a mask selects; an empty mask gives +inf (sum of nothing) or NaN (mean of nothing).
Right: exit 0; a trial whose metric is not finite is never COMPLETE and never the best: PRUNED as non-finite (FAIL would
do), naming the metric `snr_db` and its value; Optuna alone stores +inf as COMPLETE, and it wins for ever.
"""

import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term

EXIT = 0
SAYS = "snr_db"


def expected(params: dict) -> str:
    return "PRUNED" if params["rows"] in ("far", "farthest") else "COMPLETE"


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
        error = (self.forward(batch) - batch["y"]) ** 2
        least = {"all": 0.0, "most": 0.5, "far": 1e3, "farthest": 1e3}[self.params["rows"]]
        error = error[batch["x"].norm(dim=1) >= least]
        error = error.mean() if self.params["rows"] == "farthest" else error.sum() / 500
        return {"snr_db": float(-10 * torch.log10(error))}


class Problem(Objective):
    name, metric, direction = "fresh_infinite_winner", "snr_db", "maximize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
            "rows": Choice(choices=("all", "most", "far", "farthest"), default="all"),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
