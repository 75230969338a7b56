"""An own objective in one file, to copy: tell two spirals apart.

Try it with `python -m hpo check examples/own_objective.py`, then search with
`python -m hpo --objective examples/own_objective.py --n_trials 20`.
"""

import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term


def spirals(count, *seed, device):
    """Noisy points in the complex plane, and which of two spiral arms each of them is on."""
    generator = torch.Generator().manual_seed(hash(seed))
    arm = torch.randint(2, (count,), generator=generator)
    radius = torch.rand(count, generator=generator)
    noise = 0.02 * torch.randn(count, dtype=torch.complex64, generator=generator)
    point = torch.polar(radius, torch.pi * (2 * radius + arm)) + noise
    return {"point": point.to(device), "arm": arm.to(device)}


class SpiralTask(Task):
    """The training of one trial: a small network with a learning rate each for body and head."""

    steps_per_epoch = 40

    def __init__(self, params, context):
        self.context, width = context, params["width"]
        body = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        head = nn.Linear(width, 2)
        self.modules = {"body": body.to(context.device), "head": head.to(context.device)}
        self.groups = [
            Group(name=name, parameters=list(module.parameters()), lr=params[f"lr_{name}"])
            for name, module in self.modules.items()
        ]

    def batch(self, step):
        return spirals(128, self.context.seed, step, device=self.context.device)

    def forward(self, batch):
        features = self.modules["body"](torch.view_as_real(batch["point"]))
        return self.modules["head"](features)

    def loss(self, outputs, batch):
        return {"cross_entropy": Term(nn.functional.cross_entropy(outputs, batch["arm"]))}

    def validate(self):
        batch = spirals(2000, self.context.problem_seed, device=self.context.device)
        outputs = self.forward(batch)
        correct = (outputs.argmax(1) == batch["arm"]).float()
        loss = self.loss(outputs, batch)["cross_entropy"].value
        return {"accuracy": float(correct.mean()), "cross_entropy": float(loss)}


class Spirals(Objective):
    """The search space, and the figure of `validate` that rates a trial."""

    name, metric, direction = "spirals", "accuracy", "maximize"
    spaces = {
        "wide": {
            "lr_body": Float(low=1e-4, high=1e-1, default=1e-3, log=True),
            "lr_head": Float(low=1e-4, high=1e-1, default=1e-3, log=True),
            "width": Choice(choices=(16, 32, 64), default=32),
        }
    }

    def build(self, params, context):
        return SpiralTask(params, context)


objective = Spirals()
