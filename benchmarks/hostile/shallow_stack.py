"""A trial lowers the recursion limit to its own depth, stops the collector, asks for 64 threads.

Right: that trial ends in some way, and the others have their values, exit 0.
"""

import gc
import inspect
import sys

import torch
from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


def expected(params):
    return "FAIL or COMPLETE" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Task(CalmTask):
    def validate(self):
        if self.is_hostile:
            gc.disable()
            torch.set_num_threads(64)
            sys.setrecursionlimit(len(inspect.stack(0)) + 12)
        return super().validate()


class Hostile(Calm):
    task = Task


objective = Hostile()
