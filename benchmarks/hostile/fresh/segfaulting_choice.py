"""One kernel, like a broken extension, always crashes its process with SIGSEGV at the same step: a poisoned trial.
Right: exit 0, no endless resuming: after a few workers lost on it the trial is FAIL, saying that its process died by
SIGSEGV; other trials complete in a new worker, and there are exactly 6. (Five FAIL in a row: exit 1.)
"""

import os
import resource
import signal

import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term

EXIT = 0
ENQUEUE = [{"kernel": "fused"}]
SAYS = "SIGSEGV"


def expected(params: dict) -> str:
    return "FAIL" if params["kernel"] == "fused" else "COMPLETE"


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
        self.step = 0
        self.modules = {"net": net}
        self.groups = [Group(name="net", parameters=list(net.parameters()), lr=params["lr"])]

    def batch(self, step):
        self.step = step
        return points(32, self.context.seed, step, device=self.context.device)

    def forward(self, batch):
        if self.params["kernel"] == "fused" and self.step == 27:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core files of the attack
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.modules["net"](batch["x"]).squeeze(1)

    def loss(self, outputs, batch):
        return {"mse": Term(nn.functional.mse_loss(outputs, batch["y"]))}

    def validate(self):
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_segfaulting_choice", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
            "kernel": Choice(choices=("eager", "compiled", "fused"), default="eager"),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
