"""The pruners by name, each with a patience in proportion to a trial's epochs."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.pruners import BasePruner

from hpo.errors import ConfigurationError
from hpo.search.column_pruners import (
    ColumnHalvingPruner,
    ColumnHyperbandPruner,
    ColumnPercentilePruner,
)
from hpo.search.plugins import is_plugin, load_plugin

PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "median": lambda epochs: ColumnPercentilePruner(
        50.0, n_startup_trials=5, n_warmup_steps=max(1, epochs // 6)
    ),
    "percentile": lambda epochs: ColumnPercentilePruner(
        25.0, n_startup_trials=5, n_warmup_steps=max(1, epochs // 6)
    ),
    "sha": lambda epochs: ColumnHalvingPruner(min_resource=max(1, epochs // 6), reduction_factor=2),
    "hyperband": lambda epochs: ColumnHyperbandPruner(
        optuna.pruners.HyperbandPruner(
            min_resource=max(1, epochs // 6), max_resource=epochs, reduction_factor=2
        )
    ),
    "none": lambda _: optuna.pruners.NopPruner(),
}


def make_pruner(name: str, *, epochs: int) -> BasePruner:
    """The pruner of this name, or the one at `module:attr`, which may take `epochs`."""
    if name in PRUNERS:
        return PRUNERS[name](epochs)
    own: BasePruner = load_plugin(name, BasePruner, flag="pruner", epochs=epochs)
    return own


def check_pruner(name: str) -> None:
    """Raise `ConfigurationError` unless the name is a pruner's or has the form `module:attr`."""
    if name not in PRUNERS and not is_plugin(name):
        raise ConfigurationError(
            f"no pruner named '{name}'; use one of {', '.join(PRUNERS)}, or module:attr (--pruner)"
        )
