"""A trial ends the process at once with os._exit(0), as if all were done.

Right: that trial fails after its second lost worker; the others have their values, exit 0.
"""

import os

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", "code 0"


def expected(params):
    return "FAIL" if params["x"] > 0.95 else "COMPLETE"


class Task(CalmTask):
    def validate(self):
        if self.params["x"] > 0.95:
            os._exit(0)
        return super().validate()


class Hostile(Calm):
    task = Task


objective = Hostile()
