"""The predictions are a generator that never ends, and each holds itself.

Right: six complete trials with their values; what was predicted is stored as an error, or not.
"""

from calm import Calm, CalmTask

from objectives import Prediction

EXIT, VALUES = 0, "calm"


class Task(CalmTask):
    def predict(self, samples):
        while True:
            loop = []
            loop.append(loop)
            yield Prediction(kind="loop", input=loop, target=1, prediction=loop, score=0.0)


class Hostile(Calm):
    task = Task


objective = Hostile()
