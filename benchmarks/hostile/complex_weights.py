"""The parameters are complex, which Adam's second moment and the scaler treat in ways of their own.

Right: refused before there is a study, with the parameter's name and what to write instead.
"""

import torch
from calm import Calm, CalmTask

from objectives import Group

EXIT, CHECK, SAYS = 2, 2, "complex"


class Modulus(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x.to(self.weight.dtype)).abs()


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        self.net = Modulus(4, 1, dtype=torch.complex64)
        self.modules = {"net": self.net}
        self.groups = [Group(name="net", parameters=list(self.net.parameters()), lr=params["lr"])]


class Hostile(Calm):
    task = Task


objective = Hostile()
