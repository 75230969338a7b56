"""A trial forks, and its child goes on in the training loop as a second trainer of the same trial.

Right: six complete trials with their values: the child ends, and writes nothing.
"""

import os

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, NEVER = 0, 0, "calm", "ended with code"


class Task(CalmTask):
    def batch(self, step):
        if self.is_hostile and step == 3:
            os.fork()
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
