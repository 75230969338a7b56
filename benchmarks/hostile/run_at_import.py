"""The file starts its own search when it is imported: a call of hpo.run without a guard of main.

Right: refused before there is a study, with a sentence; no run starts runs that start runs.
"""

import os

from calm import Calm

import hpo

EXIT, CHECK, SAYS = 2, 2, "hpo.run"


class Hostile(Calm):
    pass


objective = Hostile()

# Three levels show what becomes of it, and do this machine no harm.
DEPTH = int(os.environ.get("HOSTILE_DEPTH", "0"))
if DEPTH < 3:
    os.environ["HOSTILE_DEPTH"] = str(DEPTH + 1)
    hpo.run(objective=__file__, n_trials=2, workers=1)
