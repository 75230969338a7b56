"""The objective's own suggest returns another value than it asked for, under the same name.

Right: never a complete trial whose recorded parameter was not the one trained: refused, or failed.
"""

from calm import Calm

EXIT = (1, 2)


def expected(params):
    return "FAIL"


class Hostile(Calm):
    def suggest(self, trial, space):
        params = dict(super().suggest(trial, space))
        params["lr"] = 0.05
        return params


objective = Hostile()
