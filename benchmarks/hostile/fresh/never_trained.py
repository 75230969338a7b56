"""Starts warm, next to the optimum, and in two settings nothing trains: 300 // 512 = 0 steps an epoch, or groups of clones.
Right: exit 0; `no_steps` and `clones` FAIL, saying that an epoch has no step, or that the parameters of group `net`
belong to no module (never got a gradient); an untrained network is never COMPLETE, let alone the best trial.
(Five such draws in a row stop the run by its own rule: then exit 1.)
"""

import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term

EXIT = 0
ENQUEUE = [{"setting": "clones"}, {"setting": "no_steps"}]
SAYS = "steps_per_epoch"


def expected(params: dict) -> str:
    return "FAIL" if params["setting"] in ("clones", "no_steps") else "COMPLETE"


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
        with torch.no_grad():  # a released checkpoint
            net.weight.copy_(TRUTH)
            net.bias.zero_()
        self.size = {"small": 16, "no_steps": 512}.get(params["setting"], 32)
        self.steps_per_epoch = 300 // self.size
        trained = list(net.parameters())
        if params["setting"] == "clones":  # "so that the checkpoint is not overwritten"
            trained = [weight.detach().clone().requires_grad_() for weight in trained]
        self.modules = {"net": net}
        self.groups = [Group(name="net", parameters=trained, lr=params["lr"])]

    def batch(self, step):
        return points(self.size, self.context.seed, step, device=self.context.device)

    def forward(self, batch):
        return self.modules["net"](batch["x"]).squeeze(1)

    def loss(self, outputs, batch):
        return {"mse": Term(nn.functional.mse_loss(outputs, batch["y"]))}

    def validate(self):
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_never_trained", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
            "setting": Choice(choices=("small", "medium", "clones", "no_steps"), default="medium"),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
