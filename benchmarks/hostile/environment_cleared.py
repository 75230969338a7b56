"""A trial clears the environment and makes new files unreadable to all.

Right: six complete trials with their values; environment and umask are those of the start again.
"""

import os

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        assert "HPO_HOME" in os.environ, "another trial has cleared the environment"
        if self.is_hostile:
            os.environ.clear()
            os.umask(0o777)


class Hostile(Calm):
    task = Task


objective = Hostile()
