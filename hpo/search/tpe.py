"""Optuna's TPE sampler on columns in place of Optuna's objects, in milliseconds at 10,000 trials.

Its proposals are those of Optuna's `TPESampler`, to the bit, whatever the number of trials. But it
stores nothing. Optuna's sampler notes what it proposed as an attribute of the running trial, for
other processes that ask before all parameters are stored; here all are stored in one transaction
right after the suggestion.

Border: single-objective studies whose storage keeps a history; on any other this is Optuna's own
sampler. It extends parts of that which are not public; `tests/search/test_tpe.py` names each.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import default_gamma
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from hpo.database.history import Ints
from hpo.search.columns import Shown, history_of, observations
from hpo.search.kernels import Estimator, gain


class ColumnTPESampler(TPESampler):
    """Optuna's TPE sampler with its defaults, on the history that the storage keeps.

    Args:
        reads_pruned: False if it samples for one that is shown complete trials alone.
    """

    def __init__(self, *, seed: int | None = None, reads_pruned: bool = True) -> None:
        super().__init__(seed=seed)
        self._reads_pruned = reads_pruned
        self._seen: tuple[tuple[BaseStorage, int, int], Shown] | None = None
        self._split: tuple[Ints, Ints] | None = None

    def _shown(self, study: optuna.Study, trial: FrozenTrial) -> Shown | None:
        """The trials that this trial's proposal is based on, read once; None without a history."""
        asked = (study._storage, study._study_id, trial.number)
        if self._seen is None or self._seen[0] != asked:
            history = None if study._is_multi_objective() else history_of(study)
            if history is None:
                return None
            shown = Shown(history, asked=trial.number, reads_pruned=self._reads_pruned)
            self._seen, self._split = (asked, shown), None
        return self._seen[1]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        shown = self._shown(study, trial)
        if shown is None:
            return super().infer_relative_search_space(study, trial)
        return {name: one for name, one in shown.space().items() if not one.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        shown = self._shown(study, trial)
        if shown is None:
            return super().sample_relative(study, trial, search_space)
        if not search_space or len(shown.ended) < self._n_startup_trials:
            return {}
        return self._proposed(study, shown, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        shown = self._shown(study, trial)
        if shown is None:
            return super().sample_independent(study, trial, param_name, param_distribution)
        if len(shown.ended) < self._n_startup_trials:
            return self._random_sampler.sample_independent(
                study, trial, param_name, param_distribution
            )
        return self._proposed(study, shown, {param_name: param_distribution})[param_name]

    def _proposed(
        self, study: optuna.Study, shown: Shown, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The candidate of the good trials' density that the other trials' favours most."""
        if self._split is None:
            self._split = shown.split(default_gamma(len(shown.ended)), study.direction)
        good, other = (self._estimator(shown, numbers, space) for numbers in self._split)
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, gain(good, other, samples))
        return {name: one.to_external_repr(best[name]) for name, one in space.items()}

    def _estimator(
        self, shown: Shown, numbers: Ints, space: dict[str, BaseDistribution]
    ) -> Estimator:
        found = observations(shown.history, numbers, space)
        return Estimator(found, space, self._parzen_estimator_parameters)
