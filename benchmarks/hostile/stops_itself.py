"""A trial sends SIGTERM to its own process, as a watchdog of the training code does.

Right: six complete trials with their values: a trial that was stopped goes on in the next worker.
"""

import os
import signal

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


class Task(CalmTask):
    def batch(self, step):
        if self.is_hostile and step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
