"""Every trial leaves a thread behind that never ends and that Python waits for at its exit.

Right: six complete trials with their values; the worker ends when they are done.
"""

import threading

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        threading.Thread(target=threading.Event().wait).start()


class Hostile(Calm):
    task = Task


objective = Hostile()
