"""A trial's value through the real program: in any order, and with a process for each trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.program import Program
from tests.support.studies import trials

# A trial with a large x sets a default for itself, and all leave the folder in which they were.
_CARELESS = '''
"""A regression of which some trials set a default for themselves."""
import os, random, tempfile
from pathlib import Path
import numpy as np
import torch
from torch import nn
from objectives import Float, Group, Objective, Task, Term

FOLDER = Path({folder!r})
TRIALS = []

class T(Task):
    steps_per_epoch = 5

    def __init__(self, params, context):
        assert Path.cwd() != FOLDER / "gone"
        with (FOLDER / "pids").open("a") as file:
            file.write(f"{{os.getpid()}} ")
        self.seed = context.seed
        if params["x"] > 0.5:
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(True)
            os.environ["LEFT"] = "1"
            (FOLDER / "gone").mkdir()
            os.chdir(FOLDER / "gone")
            (FOLDER / "gone").rmdir()
        self.net = nn.Linear(4, 1)
        self.modules = {{"net": self.net}}
        self.groups = [Group(name="net", parameters=list(self.net.parameters()), lr=params["lr"])]

    def batch(self, step):
        x = torch.randn(16, 4) + random.random() + float(np.random.rand()) + ("LEFT" in os.environ)
        return {{"x": x, "y": x.sum(1, keepdim=True)}}

    def forward(self, batch):
        return self.net(batch["x"].to(self.net.weight.dtype))

    def loss(self, outputs, batch):
        return {{"mse": Term((outputs - batch["y"]).square().mean())}}

    def validate(self):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(7))
        return {{"error": float((self.net(x) - x.sum(1, keepdim=True)).square().mean())}}

class Careless(Objective):
    name, metric, direction = "careless", "error", "minimize"
    spaces = {{"wide": {{"lr": Float(low=1e-4, high=1e-1, default=1e-2, log=True),
                       "x": Float(low=0.0, high=1.0, default=0.2)}}}}
    def build(self, params, context):
        return T(params, context)

objective = Careless()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "careless.py").write_text(_CARELESS.format(folder=str(tmp_path)))
    return tmp_path


def values(program: Program, url: str, folder: Path, xs: list[float], *flags: str) -> list[float]:
    """The values of a study's trials with these x, and lines with their processes in `pids`."""
    name = f"s-{'-'.join(map(str, xs))}{''.join(flags)}"
    (folder / "pids").write_text("")
    (folder / "enqueue.json").write_text(json.dumps([{"lr": 0.01, "x": x} for x in xs]))
    ran = program(
        *("--objective", str(folder / "careless.py"), "--study_name", name, *flags),
        *("--epochs_per_trial", "2", "--workers", "1", "--pruner", "none"),
        *("--sampler", "random", "--n_trials", str(len(xs) + 1)),
        *("--enqueue", str(folder / "enqueue.json")),
    )
    assert ran.returncode == 0, ran.stderr
    return [trial.value for trial in trials(url, name)]


@pytest.mark.acceptance
def test_each_trial_has_the_value_that_it_has_in_a_process_of_its_own(program, url, folder):
    for xs in ([0.9, 0.1], [0.1, 0.9]):
        together = values(program, url, folder, xs)
        pids = (folder / "pids").read_text().split()
        alone = values(program, url, folder, xs, "--fresh_process")
        fresh_pids = (folder / "pids").read_text().split()

        assert together == alone
        assert len(set(pids)) == 1
        # The first one looks at the objective before there is a study.
        assert len(set(fresh_pids)) == len(fresh_pids) == 1 + len(together)
