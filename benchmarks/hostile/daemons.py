"""Every trial starts a helper in a session of its own, whose parent is gone.

Right: six complete trials with their values; none of the helpers outlives the run.
"""

import subprocess
import sys

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"
HELPER = "import os, time; os.setsid(); os.fork() and os._exit(0); time.sleep(600)"


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        subprocess.run([sys.executable, "-S", "-c", HELPER], check=True)


class Hostile(Calm):
    task = Task


objective = Hostile()
