"""A trial enters a mode of torch that halves every linear layer's output, and never leaves it.

Right: six complete trials; all but its own have the values that they have alone.
"""

import torch
from calm import Calm, CalmTask
from torch.overrides import TorchFunctionMode

EXIT, CHECK, VALUES = 0, 0, "calm"


class Halved(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        return found / 2 if function is torch.nn.functional.linear else found


class Task(CalmTask):
    def validate(self):
        found = super().validate()
        # After its last figure, so that its own value is the calm one.
        if self.is_hostile and self.epoch == self.context.epochs:
            Halved().__enter__()
        return found

    epoch = 0

    def batch(self, step):
        self.epoch = step // self.steps_per_epoch + 1
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
