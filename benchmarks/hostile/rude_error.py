"""Two trials raise errors that cannot be printed or stored: one has NUL and half a surrogate pair.

Right: these two fail, under the name of the error; the others have their values, exit 0.
"""

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", ("Rude", "ValueError")


def expected(params):
    return "FAIL" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Rude(Exception):
    def __str__(self):
        raise TypeError("it has no text")


class Task(CalmTask):
    def forward(self, batch):
        if self.is_hostile:
            raise Rude if self.params["x"] > 0.5 else ValueError("a\x00b\udcff\x1b[2J" * 100_000)
        return super().forward(batch)


class Hostile(Calm):
    task = Task


objective = Hostile()
