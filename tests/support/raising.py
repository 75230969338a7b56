"""An objective that raises the error `error` in its hook `hook`; for `--enqueue`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import sqlalchemy as sa
import torch
from torch import Tensor, nn

from hpo.errors import LeaseLost, StopRequested, TrialGone
from hpo.guard.evidence import Divergence, Evidence
from objectives import Choice, Context, Group, Objective, Params, Task, Term, Trial

FINE = "none"


def _raise(error: BaseException) -> None:
    raise error


def _query() -> None:
    sa.create_engine("sqlite://").connect().execute(sa.text("select * from nothing"))


def _chained() -> None:
    try:
        raise torch.OutOfMemoryError("CUDA out of memory")
    except torch.OutOfMemoryError as error:
        raise ValueError("the batch is too large") from error


class NoMessage(Exception):
    """An error whose message raises."""

    def __str__(self) -> str:
        raise ValueError("no message")


# What is raised, by the beginning of the detail that the trial is to have.
ERRORS: dict[str, Callable[[], object]] = {
    "SystemExit: 2": lambda: sys.exit(2),
    "SystemExit": lambda: sys.exit(),
    "SystemExit: a word": lambda: sys.exit("a word"),
    "SystemExit: 2 (unrecognized arguments: --nope)": lambda: argparse.ArgumentParser().parse_args(
        ["--nope"]
    ),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "StopIteration": lambda: next(iter(())),
    "CancelledError": lambda: _raise(asyncio.CancelledError()),
    "BaseException: own": lambda: _raise(BaseException("own")),
    "BaseExceptionGroup: two": lambda: _raise(BaseExceptionGroup("two", [SystemExit(3)])),
    "NoMessage: its message cannot be shown": lambda: _raise(NoMessage()),
    "OperationalError: (sqlite3.OperationalError)": _query,
    "StorageInternalError: own": lambda: _raise(optuna.exceptions.StorageInternalError("own")),
    "DuplicatedStudyError: own": lambda: _raise(optuna.exceptions.DuplicatedStudyError("own")),
    "ValueError: \\0 and \\ud800": lambda: _raise(ValueError("\0 and \ud800")),
    "LeaseLost: own": lambda: _raise(LeaseLost("own")),
    "TrialGone: own": lambda: _raise(TrialGone("own")),
    "StopRequested: own": lambda: _raise(StopRequested("own")),
    "Divergence": lambda: _raise(
        Divergence("stalled", "own", evidence=Evidence(), saved=None, skipped=0, seconds=0.0)
    ),
}
PRUNED: dict[str, Callable[[], object]] = {
    "objective": lambda: _raise(optuna.TrialPruned("error over 3")),
    "oom": _chained,
}
HOOKS = (
    *("suggest", "build", "optimizer", "schedule", "batch", "forward", "loss"),
    *("monitor", "idle", "validate", "state_dict"),
)


class RaisingTask(Task):
    """A regression of one weight."""

    steps_per_epoch = 8

    def __init__(self, params: Params, context: Context) -> None:
        self._hook, self._error = params["hook"], params["error"]
        self._meet("build")
        self._net = nn.Linear(2, 1)
        self.modules = {"net": self._net}
        self.groups = [Group(name="all", parameters=list(self._net.parameters()), lr=1e-2)]

    def _meet(self, hook: str) -> None:
        if self._hook == hook:
            {**ERRORS, **PRUNED}[self._error]()

    def optimizer(self) -> torch.optim.Optimizer | None:
        self._meet("optimizer")
        return super().optimizer()

    def schedule(self, progress: float) -> float:
        self._meet("schedule")
        return 1.0

    def batch(self, step: int) -> Tensor:
        self._meet("batch")
        return torch.randn(4, 2, generator=torch.Generator().manual_seed(step))

    def forward(self, batch: Tensor) -> Tensor:
        self._meet("forward")
        return torch.as_tensor(self._net(batch))

    def loss(self, outputs: Tensor, batch: Tensor) -> Mapping[str, Term]:
        self._meet("loss")
        return {"misfit": Term((outputs - batch.sum(1, keepdim=True)).square().mean())}

    def monitor(self) -> Mapping[str, Tensor]:
        self._meet("monitor")
        return {}

    def idle(self, step: int) -> frozenset[str]:
        self._meet("idle")
        return frozenset()

    def validate(self) -> Mapping[str, float]:
        self._meet("validate")
        return {"error": float(self._net.weight.detach().square().sum())}

    def predict(self, samples: Any) -> Any:
        self._meet("predict")
        return []

    def state_dict(self) -> dict[str, Any]:
        self._meet("state_dict")
        return {}


class Raising(Objective):
    """The size of a weight."""

    name, metric, direction = "raising", "error", "minimize"
    sizes = ("tiny",)
    spaces = {
        "wide": {
            "hook": Choice(choices=(FINE, *HOOKS, "predict", "evaluate"), default=FINE),
            "error": Choice(choices=(*ERRORS, *PRUNED), default="SystemExit"),
        }
    }

    def suggest(self, trial: Trial, space: str) -> Params:
        params = super().suggest(trial, space)
        if params["hook"] == "suggest":
            {**ERRORS, **PRUNED}[params["error"]]()
        return params

    def build(self, params: Params, context: Context) -> RaisingTask:
        return RaisingTask(params, context)

    def evaluate(self, task: Task, context: Context, asked: Any) -> Any:
        task._meet("evaluate")
        return None

    def references(self, context: Context) -> Mapping[str, float]:
        sys.exit(2)


objective = Raising()
