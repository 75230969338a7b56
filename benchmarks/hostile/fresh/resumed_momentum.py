"""Is killed once in epoch 2 of a trial, has SGD with momentum of its own and, as `best` of its state, a numpy.float64.
Right: exit 0, 6 COMPLETE: the worker is replaced and the trial goes on as if uninterrupted, momentum included; a
numpy.float64 is a float, so its checkpoint can be read back. The task compares its last weights with a plain loop, and
raises if they differ (in fp32). Wrong: FAIL by "weights only load failed", a lost trial, or a silent restart of momentum.
"""

import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term

EXIT = 0
STATES = {"COMPLETE": 6, "PRUNED": 0, "FAIL": 0}

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
        net = nn.Linear(4, 1, bias=False).to(context.device)
        nn.init.zeros_(net.weight)
        self.best, self.step, self.total = 1e9, -1, 20 * context.epochs
        self.marker = Path(tempfile.gettempdir(), f"fresh-killed-{os.getuid()}-{context.seed}")
        self.modules = {"net": net}
        self.groups = [Group(name="net", parameters=[net.weight], lr=params["lr"])]

    def batch(self, step):
        if step == 30 and self.params["kill"] != "never" and not self.killed():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.step = step
        return points(32, self.context.seed, step, device=self.context.device)

    def killed(self):  # a marker of an earlier run does not count
        return self.marker.exists() and time.time() - self.marker.stat().st_mtime < 600

    def forward(self, batch):
        return self.modules["net"](batch["x"]).squeeze(1)

    def loss(self, outputs, batch):
        return {"mse": Term(nn.functional.mse_loss(outputs, batch["y"]))}

    def validate(self):
        batch = points(500, self.context.problem_seed, device=self.context.device)
        error = float(self.loss(self.forward(batch), batch)["mse"].value)
        self.best = min(np.float64(error) if self.params["kill"] == "numpy" else error, self.best)
        if self.step == self.total - 1:
            self.marker.unlink(missing_ok=True)
            self.compare(self.modules["net"].weight[0].float().cpu())
        return {"error": error}

    def compare(self, weight):
        plain, velocity = torch.zeros(4), torch.zeros(4)
        for step in range(self.total):
            batch = points(32, self.context.seed, step, device="cpu")
            gradient = 2 * batch["x"].T @ (batch["x"] @ plain - batch["y"]) / 32
            velocity = 0.9 * velocity + gradient
            plain = plain - self.params["lr"] * velocity
        if not torch.allclose(weight, plain, atol=1e-3):
            raise RuntimeError(f"the resumed trial has {weight}, an uninterrupted one {plain}")

    def optimizer(self):
        groups = [{"params": list(group.parameters), "lr": group.lr} for group in self.groups]
        return torch.optim.SGD(groups, lr=self.params["lr"], momentum=0.9)

    def state_dict(self):
        return {"best": self.best}

    def load_state_dict(self, state):
        self.best = state["best"]


class Problem(Objective):
    name, metric, direction = "fresh_resumed_momentum", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=3e-3, default=2e-3, log=True),
            "kill": Choice(choices=("never", "plain", "numpy"), default="plain"),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
