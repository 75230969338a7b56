"""Two trials raise what `except Exception` misses: KeyboardInterrupt in one, GeneratorExit in one.

Right: these two fail with the exception's name, for nobody asked for a stop; the others have their
values, exit 0.
"""

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", ("GeneratorExit", "KeyboardInterrupt")
NEVER = "ended with code"


def expected(params):
    return "FAIL" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Task(CalmTask):
    def loss(self, outputs, batch):
        if self.is_hostile:
            raise GeneratorExit if self.params["x"] > 0.5 else KeyboardInterrupt
        return super().loss(outputs, batch)


class Hostile(Calm):
    task = Task


objective = Hostile()
