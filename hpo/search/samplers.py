"""The samplers by name, each of which learns from divergence without a penalty value.

Border: which sampler there is and which one a space gets. What it is shown of a study is
`sampler_view`'s; what is stored of a trial is the worker's.

Of Optuna's samplers only TPE reads pruned trials. The others would propose the diverging region
again and again, and would find nothing in a study whose pruner ends most trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import ConfigurationError
from hpo.search.plugins import is_plugin, load_plugin
from hpo.search.sampler_view import (
    RERUN_OF,
    UNTRAINED,
    View,
    constrained,
)
from objectives import Choice, Space

__all__ = ["RERUN_OF", "SAMPLERS", "UNTRAINED", "InformedSampler"]

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: InformedSampler(optuna.samplers.TPESampler(seed=seed), reads_pruned=True),
    "gp": lambda seed: InformedSampler(
        optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    ),
    "cmaes": lambda seed: InformedSampler(
        optuna.samplers.CmaEsSampler(
            seed=seed,
            # It proposes numbers alone; categories are left to a sampler that learns, too.
            independent_sampler=optuna.samplers.TPESampler(seed=seed),
            warn_independent_sampling=False,
        )
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


class InformedSampler(BaseSampler):
    """A sampler of Optuna's that sees a study through a `View`.

    Args:
        reads_pruned: Whether `inner` itself reads pruned trials and their constraints, as TPE does.
    """

    def __init__(self, inner: BaseSampler, *, reads_pruned: bool = False) -> None:
        self.inner, self._reads_pruned = inner, reads_pruned

    def _view(self, study: optuna.Study) -> optuna.Study:
        # What samplers use of a study, not all that a study is.
        return cast(optuna.Study, View(study, reads_pruned=self._reads_pruned))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.inner.sample_independent(
            self._view(study), trial, param_name, param_distribution
        )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(self._view(study), trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        # CMA-ES would warn of every constraint that it cannot use.
        self.inner.after_trial(self._view(study), constrained(trial, {}), state, values)

    def reseed_rng(self) -> None:
        self.inner.reseed_rng()


def make_sampler(name: str, *, seed: int) -> BaseSampler:
    """The sampler of this name or at `module:attr`, which may take `seed`.

    An own sampler is told of divergence as ours are.
    """
    if name in SAMPLERS:
        return SAMPLERS[name](seed)
    own: BaseSampler = load_plugin(name, BaseSampler, flag="--sampler", seed=seed)
    return InformedSampler(own, reads_pruned=isinstance(own, optuna.samplers.TPESampler))


def check_sampler(name: str) -> None:
    """Raise `ConfigurationError` unless a sampler has this name, or it says `module:attr`."""
    if name not in SAMPLERS and not is_plugin(name):
        raise ConfigurationError(
            f"no sampler named '{name}'; use one of {', '.join(SAMPLERS)}, auto, or module:attr "
            "(--sampler)"
        )


def resolve(name: str, space: Space, *, n_trials: int) -> str:
    """The sampler that a name means for a search space: itself, but for `auto`.

    `auto` is the Gaussian process for five parameters and more, all of them numbers, in up to 200
    trials, and TPE elsewhere. Over 50 trials the one won on six numbers and the other on three; on
    four they tied, and on the RIS objective, 13 with categories and noise, TPE was ahead in two
    seeds of two. A Gaussian process takes .5 to 1 s of CPU to propose among 100 trials, 5 s among
    400.
    """
    if name != "auto":
        return name
    is_numeric = not any(isinstance(spec, Choice) for spec in space.values())
    return "gp" if is_numeric and len(space) >= 5 and n_trials <= 200 else "tpe"
