"""Leaves torch's anomaly detection on from a debugging session; a norm of a zero bias has a NaN gradient if eps is 0.
Right: exit 0; eps 0 PRUNED as a true divergence, with term `norm` and the operation (sqrt or pow), exactly as without
anomaly detection: autograd's RuntimeError is neither a bug of the objective (FAIL) nor a reason to stop the run.
"""

import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term

EXIT = 0
SAYS = "norm"


def expected(params: dict) -> str:
    return "PRUNED" if params["eps"] == 0.0 else "COMPLETE"


TRUTH = torch.tensor([1.0, -2.0, 3.0, 0.5])
torch.autograd.set_detect_anomaly(True)  # TODO remove


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
        nn.init.zeros_(net.bias)
        self.modules = {"net": net}
        self.groups = [Group(name="net", parameters=list(net.parameters()), lr=params["lr"])]

    def batch(self, step):
        return points(32, self.context.seed, step, device=self.context.device)

    def forward(self, batch):
        return self.modules["net"](batch["x"]).squeeze(1)

    def loss(self, outputs, batch):
        norm = ((self.modules["net"].bias.float() ** 2).sum() + self.params["eps"]).sqrt()
        mse = nn.functional.mse_loss(outputs, batch["y"])
        return {"mse": Term(mse), "norm": Term(norm, 1e-3)}

    def validate(self):
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_anomaly_mode", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
            "eps": Choice(choices=(0.0, 1e-08, 1e-06), default=1e-08),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
