"""Every trial prints 20 MB, half of it in one line and with escapes that clear the screen.

Right: six complete trials with their values; the terminal of the run is not flooded.
"""

import sys

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        print("\x1b[2J" * 2_500_000)
        print("loss 0.1\n" * 1_100_000, file=sys.stderr)


class Hostile(Calm):
    task = Task


objective = Hostile()
