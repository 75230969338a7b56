"""A cache of the module is filled by the first trial, with its own parameter, and serves them all.

Right: the run cannot see it and ends with 0; `check` names the difference and --fresh_process.
"""

from calm import Calm, CalmTask

EXIT, CHECK_SAYS = 0, "--fresh_process"
CACHE = {}


class Task(CalmTask):
    def batch(self, step):
        found = super().batch(step)
        return found | {"x": found["x"] * CACHE.setdefault("scale", 1 + self.params["x"])}


class Hostile(Calm):
    task = Task


objective = Hostile()
