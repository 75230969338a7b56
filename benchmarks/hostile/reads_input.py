"""A trial asks a question on standard input.

Right: that trial fails with EOFError, for there is nobody to ask; the others have their values.
"""

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", "EOFError"


def expected(params):
    return "FAIL" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        if self.is_hostile:
            input("learning rate [0.01]: ")


class Hostile(Calm):
    task = Task


objective = Hostile()
