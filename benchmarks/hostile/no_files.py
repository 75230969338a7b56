"""A trial allows itself no more open files, so that neither logs nor checkpoints can be opened.

Right: that trial ends in some way, and the others have their values, exit 0.
"""

import resource

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


def expected(params):
    return "FAIL or COMPLETE" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        if self.is_hostile:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))


class Hostile(Calm):
    task = Task


objective = Hostile()
