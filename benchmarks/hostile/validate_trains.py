"""Validation takes steps on the validation set, so that it is fitted rather than measured.

Right: `check` says that validate changes the network; the run refuses it or ends with 0.
"""

import torch
from calm import Calm, CalmTask

EXIT, CHECK_SAYS = (0, 2), "validate"


class Task(CalmTask):
    def validate(self):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(7))
        with torch.enable_grad():
            error = (self.net(x) - x.sum(1, keepdim=True)).square().mean()
            gradients = torch.autograd.grad(error, list(self.net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(self.net.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
        return super().validate()


class Hostile(Calm):
    task = Task


objective = Hostile()
