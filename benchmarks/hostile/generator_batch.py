"""A batch is a generator, which is empty when the guard looks at the same batch again.

Right: `check` fails at the second look; a run refuses it, or trains it, since a step looks once.
"""

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = (0, 2), 2, "calm"


class Task(CalmTask):
    def batch(self, step):
        found = super().batch(step)
        return (found[name] for name in ("x", "y"))

    def forward(self, batch):
        return self.net(next(batch))

    def loss(self, outputs, batch):
        return super().loss(outputs, {"y": next(batch)})


class Hostile(Calm):
    task = Task


objective = Hostile()
