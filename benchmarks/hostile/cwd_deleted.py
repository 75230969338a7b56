"""A trial works in a temporary folder and deletes it while it is the working directory.

Right: six complete trials with their values; the next trial is back where the run began.
"""

import os
import tempfile
from pathlib import Path

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"
HERE = Path.cwd()


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        assert Path.cwd() == HERE, "another trial has moved this one"
        if self.is_hostile:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)


class Hostile(Calm):
    task = Task


objective = Hostile()
