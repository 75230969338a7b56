"""The build takes its parameters out of the mapping, and edits its context in place.

Right: six complete trials with their values; recorded are the parameters that were suggested.
"""

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


class Hostile(Calm):
    def build(self, params, context):
        task = CalmTask(dict(params), context)
        params.pop("x")
        params["lr"] = 123.0
        context.options["size"] = "full"
        object.__setattr__(context, "epochs", 1)
        return task


objective = Hostile()
