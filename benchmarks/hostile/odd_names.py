"""Parameters and groups have names in other scripts, with quotes, slashes, '%s' and newlines.

Right: refused before there is a study, with the names; or six complete trials, recorded as written.
"""

from calm import Calm, CalmTask

from objectives import Choice, Group

EXIT = (0, 2)
NAMES = ("学习率 %s", 'a"; DROP TABLE trials;--', "../../größe", "lr\nx")


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        halves = (list(self.net[0].parameters()), list(self.net[2].parameters()))
        self.groups = [
            Group(name=name, parameters=half, lr=params["lr"])
            for name, half in zip(NAMES[:2], halves, strict=True)
        ]


class Hostile(Calm):
    task = Task
    spaces = {
        "wide": Calm.spaces["wide"]
        | {name: Choice(choices=("a/b", "%", "é"), default="%") for name in NAMES}
    }


objective = Hostile()
