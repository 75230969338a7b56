"""Train a few short trials in a fresh process, for `hpo.check.orders`, which starts it.

Border: reads the paths of a request and of its answer from stdin.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from hpo.check.orders import outcome
from hpo.task.process import ProcessState
from objectives import load


def answer(request: Path, to: Path) -> None:
    """Train the requested trials in their order, and write their outcomes."""
    asked: dict[str, Any] = torch.load(request, weights_only=True)
    torch.set_num_threads(asked["threads"])
    how = {**asked["how"], "device": torch.device(asked["how"]["device"])}
    objective, outcomes = load(asked["spec"]), []
    process = ProcessState()
    for about in asked["abouts"]:
        outcomes.append(outcome(objective, about, **how))
        process.restore()
    torch.save(outcomes, to)


if __name__ == "__main__":
    code = 1
    try:
        answer(*(Path(line.strip()) for line in (sys.stdin.readline(), sys.stdin.readline())))
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    # Python would wait for threads that a trial has left.
    os._exit(code)
