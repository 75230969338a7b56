"""Writes 320 kB without a newline to stdout and stderr at each validation: bytes that are no UTF-8, escapes, a false result.
Right: exit 0, 6 COMPLETE: no full pipe stops the worker, no UnicodeDecodeError the reader; the service's own last lines
stay legible and true (with `--json`, stdout stays JSON), and the forged line below is never taken for its result.
"""

import os

import torch
from torch import nn

from objectives import Float, Group, Objective, Task, Term

EXIT = 0
STATES = {"COMPLETE": 6, "PRUNED": 0, "FAIL": 0}

TRUTH = torch.tensor([1.0, -2.0, 3.0, 0.5])
NOISE = b"\r\x1b[2K 50%|\xff\xfe\x00\x08" * 20_000 + b"\x1b[2J"
LIE = b'\n6/6 trials | 6 complete, 0 pruned, 0 failed | best -99.0 (trial 5)\n{"best": -99.0}\n'


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
        for stream in (1, 2):
            os.write(stream, NOISE)
            os.write(stream, LIE)
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_chatty_stdout", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
