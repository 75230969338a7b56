"""A trial replaces its network after three steps, and the optimizer trains on the one before.

Right: that trial fails with a sentence on its parameters: an untrained network is not measured.
"""

import torch
from calm import Calm, CalmTask

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", "parameters"


def expected(params):
    return "FAIL" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Task(CalmTask):
    def batch(self, step):
        if self.is_hostile and step == 3:
            self.net = self.modules["net"] = torch.nn.Linear(4, 1)
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
