"""Hyperparameter optimization for networks trained in mixed precision.

    import hpo

    result = hpo.run(objective="mine.py", n_trials=20)
    hpo.best(study="mine-wide-tiny").params
    hpo.open(study="mine-wide-tiny").status()
    found = hpo.evaluate(hpo.train(study="mine-wide-tiny", epochs=200).file)

The same as `python -m hpo` on the command line; `hpo.api.run` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.api.run import (
        Best,
        Study,
        best,
        open,
        run,
    )
    from hpo.api.train import train
    from hpo.errors import HpoError
    from hpo.fleet.events import RunResult
    from hpo.refit.evaluation import Evaluated, evaluate
    from hpo.refit.folder import TrainingResult

__all__ = [
    "Best",
    "Evaluated",
    "HpoError",
    "RunResult",
    "Study",
    "TrainingResult",
    "best",
    "evaluate",
    "open",
    "run",
    "train",
]


def __getattr__(name: str) -> Any:
    # Lazily: `python -m hpo --help` must not wait for Optuna.
    if name not in __all__:
        raise AttributeError(f"module 'hpo' has no attribute '{name}'")
    from hpo import errors
    from hpo.api import run as api
    from hpo.api import train as api_train
    from hpo.fleet import events
    from hpo.refit import evaluation, folder

    for module in (api, api_train, errors, evaluation, events, folder):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)
