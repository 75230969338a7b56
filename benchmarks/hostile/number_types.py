"""The metric is a tensor, a NumPy scalar, a Decimal, a Fraction: another type in each trial.

Right: six complete trials with their values, since each of these is a number.
"""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"
TYPES = (
    *(lambda error: torch.tensor(error, dtype=torch.float64), np.float64, np.array),
    *(Decimal, Fraction),
)


class Task(CalmTask):
    def validate(self):
        as_type = TYPES[int(1e4 * self.params["x"]) % len(TYPES)]
        return {"error": as_type(super().validate()["error"])}


class Hostile(Calm):
    task = Task


objective = Hostile()
