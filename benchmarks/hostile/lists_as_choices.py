"""The choices of a parameter are lists, and the direction is 'min'.

Right: refused before there is a study, with both faults named.
"""

from calm import Calm

from objectives import Choice

EXIT, CHECK, SAYS = 2, 2, ("min", "[16, 16]")


class Hostile(Calm):
    direction = "min"
    spaces = {
        "wide": Calm.spaces["wide"] | {"widths": Choice(choices=([16, 16], [32]), default=[32])}
    }


objective = Hostile()
