"""Every trial scales what torch draws by its own parameter, and leaves torch so.

Right: the run cannot see it and ends with 0; `check` names the difference and --fresh_process.
"""

import torch
from calm import Calm, CalmTask

EXIT, CHECK_SAYS = 0, "--fresh_process"
_linear = torch.nn.functional.linear


class Task(CalmTask):
    def batch(self, step):
        found = super().batch(step)
        torch.nn.functional.linear = self._scaled
        return found

    def _scaled(self, *given):
        return _linear(*given) * (1 + self.params["x"])


class Hostile(Calm):
    task = Task


objective = Hostile()
