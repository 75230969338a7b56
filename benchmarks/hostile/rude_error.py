"""Two trials raise errors that cannot be printed: one has no text, one is its own cause.

Right: these two fail, under the name of the error; the others have their values, exit 0.
"""

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", ("Rude", "OSError")
NEVER = "ended with code"


def expected(params):
    return "FAIL" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Rude(Exception):
    def __str__(self):
        raise TypeError("it has no text")

    __repr__ = __str__


class Task(CalmTask):
    def forward(self, batch):
        if self.is_hostile and self.params["x"] > 0.5:
            raise Rude
        if self.is_hostile:
            error, cause = OSError("a"), OSError("b")
            error.__cause__, cause.__cause__ = cause, error
            raise error
        return super().forward(batch)


class Hostile(Calm):
    task = Task


objective = Hostile()
