"""The samplers by name, each of which learns from divergence without a penalty value.

Border: the list of samplers and the choice for a search space. `sampler_view` prepares the trials
that a sampler reads; the worker stores them.

A value with which every trial fails is proposed by none of them (`hopeless`).

Of Optuna's samplers only TPE reads pruned trials. The others would propose the diverging region
again and again, and would find nothing in a study whose pruner ends most trials.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import ConfigurationError
from hpo.search.cmaes import PlainCmaEs, refuse_pickles
from hpo.search.columns import history_of
from hpo.search.hopeless import Key, hopeless, hopeless_in, instead
from hpo.search.plugins import is_plugin, load_plugin
from hpo.search.sampler_view import RERUN_OF, UNTRAINED, View, constrained
from hpo.search.tpe import ColumnTPESampler
from objectives import Choice, Space

__all__ = ["RERUN_OF", "SAMPLERS", "UNTRAINED", "InformedSampler"]

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: InformedSampler(ColumnTPESampler(seed=seed), seed=seed, reads_pruned=True),
    "gp": lambda seed: InformedSampler(
        optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False), seed=seed
    ),
    "cmaes": lambda seed: InformedSampler(
        PlainCmaEs(
            seed=seed,
            # CMA-ES proposes numbers alone; TPE proposes the categories, since it learns, too.
            independent_sampler=ColumnTPESampler(seed=seed, reads_pruned=False),
            warn_independent_sampling=False,
        ),
        seed=seed,
    ),
    "random": lambda seed: InformedSampler(optuna.samplers.RandomSampler(seed=seed), seed=seed),
}


class InformedSampler(BaseSampler):
    """An Optuna sampler that reads a study through a `View`, and proposes no hopeless value.

    Args:
        seed: Seed of what replaces a hopeless choice.
        reads_pruned: True if `inner` itself reads pruned trials and their constraints, as TPE does.
    """

    def __init__(self, inner: BaseSampler, *, seed: int = 0, reads_pruned: bool = False) -> None:
        self.inner, self._seed, self._reads_pruned = inner, seed, reads_pruned
        self._avoided: tuple[int, frozenset[Key]] = (-1, frozenset())
        self._viewed: tuple[optuna.Study, int, optuna.Study] | None = None

    def _view(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        """The view of the study in which this trial's parameters are sampled."""
        viewed = self._viewed
        if viewed is None or viewed[:2] != (study, trial.number):
            view = View(study, reads_pruned=self._reads_pruned)
            # `View` has the part of a study that samplers use, not all of `optuna.Study`.
            viewed = self._viewed = study, trial.number, cast(optuna.Study, view)
        return viewed[2]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(self._view(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        found = self.inner.sample_relative(self._view(study, trial), trial, search_space)
        return {
            name: self._allowed(study, trial, name, value, search_space[name])
            for name, value in found.items()
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        value = self.inner.sample_independent(
            self._view(study, trial), trial, param_name, param_distribution
        )
        return self._allowed(study, trial, param_name, value, param_distribution)

    def _allowed(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        name: str,
        value: Any,
        distribution: BaseDistribution,
    ) -> Any:
        """The proposed value, or one in its place if it is hopeless."""
        if self._avoided[0] != trial.number:
            history = history_of(study)
            found = (
                hopeless(study.get_trials(deepcopy=False))
                if history is None
                else hopeless_in(history)
            )
            self._avoided = trial.number, frozenset((one.name, repr(one.value)) for one in found)
        avoided = self._avoided[1]
        if not avoided:
            return value
        rng = random.Random(f"{self._seed} {name}")
        return instead(name, value, distribution, avoided=avoided, rng=rng)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(self._view(study, trial), trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        # CMA-ES would warn of every constraint that it cannot use.
        self.inner.after_trial(self._view(study, trial), constrained(trial, {}), state, values)

    def reseed_rng(self) -> None:
        self.inner.reseed_rng()


def make_sampler(name: str, *, seed: int) -> BaseSampler:
    """The sampler of this name, or the one at `module:attr`, which may take `seed`.

    A user's own sampler sees divergence as ours do.
    """
    if name in SAMPLERS:
        return SAMPLERS[name](seed)
    own: BaseSampler = load_plugin(name, BaseSampler, flag="sampler", seed=seed)
    refuse_pickles(own)
    is_tpe = isinstance(own, optuna.samplers.TPESampler)
    return InformedSampler(own, seed=seed, reads_pruned=is_tpe)


def check_sampler(name: str) -> None:
    """Raise `ConfigurationError` unless the name is a sampler's or has the form `module:attr`."""
    if name not in SAMPLERS and not is_plugin(name):
        raise ConfigurationError(
            f"no sampler named '{name}'; use one of {', '.join(SAMPLERS)}, auto, or module:attr "
            "(--sampler)"
        )


def resolve(name: str, space: Space, *, n_trials: int) -> str:
    """The name of the sampler for a search space: the given name, with `auto` resolved.

    `auto` is the Gaussian process for five or more parameters, all numeric, and up to 200 trials;
    otherwise it is TPE. Over 50 trials the Gaussian process won on six numbers, TPE won on three,
    and they tied on four. On the RIS objective (13 parameters, with categories and noise) TPE was
    ahead in two seeds of two. Per proposal a Gaussian process takes 0.5 to 1 s of CPU among 100
    trials, and 5 s among 400.
    """
    if name != "auto":
        return name
    is_numeric = not any(isinstance(spec, Choice) for spec in space.values())
    return "gp" if is_numeric and len(space) >= 5 and n_trials <= 200 else "tpe"
