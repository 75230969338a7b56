"""A trial closes its standard output and error, as a daemonizing library does.

Right: six complete trials with their values; no log line lands in the file that gets the number.
"""

import os

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


class Task(CalmTask):
    def batch(self, step):
        if self.is_hostile and step == 3:
            os.close(1)
            os.close(2)
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
