"""A handler for the process's exit ends it with code 2, as a logger that cannot upload does.

Right: six complete trials with their values and exit 0: the trials were done.
"""

import atexit
import os

from calm import Calm, CalmTask

EXIT, VALUES = 0, "calm"


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        if self.is_hostile:
            atexit.register(os._exit, 2)


class Hostile(Calm):
    task = Task


objective = Hostile()
