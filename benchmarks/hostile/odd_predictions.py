"""Predicts three samples: one holds itself, one holds 300,000 numbers, one has no score.

Right: six complete trials with their values; each of the three is stored as its error.
"""

import torch
from calm import Calm, CalmTask

from objectives import Prediction

EXIT, VALUES, NEVER = 0, "calm", "ended with code"


class Task(CalmTask):
    def predict(self, samples):
        loop = []
        loop.append(loop)
        odd = ((loop, 1.0), (torch.zeros(300_000), 1.0), (1, None))
        return [
            Prediction(kind="odd", input=0, target=0, prediction=prediction, score=score)
            for prediction, score in odd[samples.start : samples.stop]
        ]


class Hostile(Calm):
    task = Task


objective = Hostile()
