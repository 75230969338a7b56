"""One generator of the module draws the weights of all trials, in the order in which they come.

Right: the run cannot see it and ends with 0; `check` says that equal trials differ.
"""

import torch
from calm import Calm, CalmTask

EXIT, CHECK_SAYS = 0, "differ"
GENERATOR = torch.Generator().manual_seed(0)


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        for parameter in self.net.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=GENERATOR)


class Hostile(Calm):
    task = Task


objective = Hostile()
