"""The length of an epoch is another one at each look, as of a loader that drops bad samples.

Right: six complete trials with their values: the length counts as it was at the trial's start.
"""

from calm import Calm, CalmTask

EXIT, VALUES = 0, "calm"


class Task(CalmTask):
    def batch(self, step):
        self.steps_per_epoch = 3 + step % 5
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
