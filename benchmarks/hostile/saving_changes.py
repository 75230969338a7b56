"""Saving the state changes it: each checkpoint adds noise to the weights.

Right: `check` says that a trial depends on when it is saved; the run refuses it or ends with 0.
"""

import torch
from calm import Calm, CalmTask

EXIT, CHECK_SAYS = (0, 2), "state_dict"


class Task(CalmTask):
    def state_dict(self):
        with torch.no_grad():
            self.net[0].weight.add_(0.1 * torch.randn(8, 4))
        return {}


class Hostile(Calm):
    task = Task


objective = Hostile()
