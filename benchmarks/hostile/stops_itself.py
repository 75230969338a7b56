"""A trial sends SIGTERM to its own process, as a watchdog of the training code does.

Right: that trial fails, or is given back and ends at last; the others have their values, exit 0.
"""

import os
import signal

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


def expected(params):
    return "FAIL" if params["x"] > 0.95 else "COMPLETE"


class Task(CalmTask):
    def batch(self, step):
        if self.params["x"] > 0.95 and step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
