"""The metric is no number in two trials: a text in one, an integer beyond all floats in the other.

Right: these two end with a sentence on the metric; the others have their values, exit 0.
"""

from calm import Calm, CalmTask

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", "error"


def expected(params):
    return "FAIL or PRUNED" if abs(params["x"] - 0.5) > 0.45 else "COMPLETE"


class Task(CalmTask):
    def validate(self):
        if not self.is_hostile:
            return super().validate()
        return {"error": "n/a" if self.params["x"] > 0.5 else 10**400}


class Hostile(Calm):
    task = Task


objective = Hostile()
