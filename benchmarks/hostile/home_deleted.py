"""A trial deletes the home folder, with logs and checkpoints, to make room for its own files.

Right: six complete trials with their values: without checkpoints and logs a trial goes on.
"""

import os
import shutil

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, NEVER = 0, 0, "calm", "ended with code"


class Task(CalmTask):
    def batch(self, step):
        if self.is_hostile and step == 3:
            shutil.rmtree(os.environ["HPO_HOME"])
        return super().batch(step)


class Hostile(Calm):
    task = Task


objective = Hostile()
