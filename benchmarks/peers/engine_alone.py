"""The service's engine without any database: build, train, discard the reports.

    python -m peers.engine_alone TRIALS

Prints the starts of its trials, in s of the wall clock, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time

import torch

from hpo.engine.plan import Plan
from hpo.engine.reports import Epoch, Reporter
from hpo.engine.trial import train
from hpo.task.build import build
from peers.objective import objective
from peers.space import EPOCHS, drawn

_CONFIG = {"size": "tiny", "epochs": EPOCHS, "problem_seed": 0, "options": {}}


class Silent(Reporter):
    """A Reporter that stores nothing and prunes nothing."""

    def must_stop(self) -> bool:
        return False

    def on_epoch(self, epoch: Epoch) -> bool:
        return False


def main() -> None:
    """Train trials one after the other."""
    torch.set_num_threads(1)
    cpu, rng, starts = torch.device("cpu"), random.Random(0), []
    for number in range(int(sys.argv[1])):
        starts.append(time.time())
        about = {"study": _CONFIG, "params": drawn(rng), "seed": number}
        plan = Plan(epochs=EPOCHS, precision="fp32", device=cpu, metric="distance", about=about)
        train(build(about, cpu, objective), plan, Silent())
    json.dump(starts, sys.stdout)


if __name__ == "__main__":
    main()
