"""A trial freezes all clocks of Python, as a test of somebody's code does, and makes sleep a no-op.

Right: six complete trials with their values; the run ends.
"""

import time

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


class Task(CalmTask):
    def batch(self, step):
        if self.is_hostile:
            time.time = time.monotonic = time.perf_counter = lambda: 0.0
            time.sleep = lambda seconds: None
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
