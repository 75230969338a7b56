"""A time limit of a trial, set by signal.alarm and never lifted, strikes when the trial is over.

Right: six complete trials with their values: it ends neither the worker nor another trial.
"""

import signal

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


def overdue(number, frame):
    raise TimeoutError("the trial takes too long")


class Task(CalmTask):
    def validate(self):
        found = super().validate()
        if self.is_hostile:
            signal.signal(signal.SIGALRM, overdue)
            # Set anew at each validation, so that only the last one's strikes.
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        return found

    def batch(self, step):
        if self.is_hostile:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
