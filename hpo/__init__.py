"""Hyperparameter optimization for networks trained in mixed precision.

    import hpo

    result = hpo.run(objective="mine.py", n_trials=20)
    hpo.best(study="mine-wide-tiny").params
    hpo.open(study="mine-wide-tiny").status()
    found = hpo.evaluate(hpo.train(study="mine-wide-tiny", epochs=200).file)

The same as `python -m hpo` on the command line; the modules of `hpo.api` say more.
"""

from __future__ import annotations

# `typing` is not imported, since a file of that name in the working folder would be taken for it:
# `python -m hpo` puts that folder first until `hpo.start` takes it away.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hpo.api.run import run
    from hpo.api.study import Best, Study, best, open
    from hpo.api.train import train
    from hpo.errors import HpoError
    from hpo.fleet.events import RunResult
    from hpo.refit.evaluation import evaluate
    from hpo.refit.evaluation_files import Evaluated
    from hpo.refit.results import TrainingResult

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

_MODULES = {
    **{"Best": "api.study", "Study": "api.study", "best": "api.study", "open": "api.study"},
    **{"run": "api.run", "RunResult": "fleet.events", "HpoError": "errors"},
    **{"train": "api.train", "TrainingResult": "refit.results"},
    **{"evaluate": "refit.evaluation", "Evaluated": "refit.evaluation_files"},
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: `python -m hpo --help` must not wait for Optuna.
    if name not in _MODULES:
        raise AttributeError(f"module 'hpo' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"hpo.{_MODULES[name]}"), name)
