"""A trial removes all modules of the service from sys.modules, as a reloader of edited code does.

Right: six complete trials with their values: no second copy of an error's class slips through.
"""

import sys

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, NEVER = 0, 0, "calm", "ended with code"


class Task(CalmTask):
    def batch(self, step):
        if self.is_hostile and step == 3:
            for name in [name for name in sys.modules if name.split(".")[0] in ("hpo", "optuna")]:
                del sys.modules[name]
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
