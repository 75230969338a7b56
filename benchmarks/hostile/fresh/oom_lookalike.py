"""One setting really cannot allocate (4 PiB), another has a plain bug whose message only contains "out of memory".
Right: exit 0; `huge` PRUNED as oom; `slots` FAIL with its traceback, not oom, so that the bug is seen and the sampler
does not learn a memory limit that does not exist. (Five FAIL in a row stop the run by its own rule: then exit 1.)
"""

import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term

EXIT = 0
ENQUEUE = [{"cache": "huge"}, {"cache": "slots"}]


def expected(params: dict) -> str:
    return {"huge": "PRUNED", "slots": "FAIL"}.get(params["cache"], "COMPLETE")


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
        if self.params["cache"] == "huge":
            torch.empty(1 << 50, device=self.context.device)
        if self.params["cache"] == "slots":  # of an associative memory, say
            raise RuntimeError("associative store: out of memory slots, 33 keys for 32 slots")
        return self.modules["net"](batch["x"]).squeeze(1)

    def loss(self, outputs, batch):
        return {"mse": Term(nn.functional.mse_loss(outputs, batch["y"]))}

    def validate(self):
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_oom_lookalike", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
            "cache": Choice(choices=("none", "small", "huge", "slots"), default="none"),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
