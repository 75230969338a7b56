"""Two trials raise what `except Exception` misses: GeneratorExit in a step, an own BaseException.

Right: these two fail with the exception's name; the others have their values, exit 0.
"""

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", ("GeneratorExit", "Enough")


def expected(params):
    return "FAIL" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Enough(BaseException):
    pass


class Task(CalmTask):
    def loss(self, outputs, batch):
        if self.is_hostile:
            raise GeneratorExit if self.params["x"] > 0.5 else Enough("of this")
        return super().loss(outputs, batch)


class Hostile(Calm):
    task = Task


objective = Hostile()
