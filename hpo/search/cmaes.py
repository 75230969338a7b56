"""CMA-ES as Optuna has it, with its state as plain numbers in the database.

Optuna's own sampler stores its optimizer as a pickle in a trial's attributes and loads it at the
next proposal, so whoever can write to the database could have every worker execute code. Here a
trial stores what the optimizer was told, `{"generation": 0, "solutions": [[x, y, value], ...]}`,
and the optimizer is computed anew from that: the same proposals, to the bit.

Border: the proposals; `samplers` makes it and shows it a view of the study. It extends parts of
Optuna's sampler that are not public; `tests/search/test_cmaes.py` names each.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from hpo.errors import ConfigurationError
from hpo.search.columns import Shown, history_of

if TYPE_CHECKING:
    import cmaes

# This system attribute of a trial holds what it told the optimizer.
_TOLD = "hpo:cma_told"
# Optuna's attribute for the generation that a trial belongs to.
_GENERATION = "cma:generation"
# The state of Optuna's own sampler, which is never read.
_PICKLE = "cma:optimizer"

_Solution = tuple[np.ndarray, float]


class PlainCmaEs(CmaEsSampler):
    """Optuna's CMA-ES sampler, which stores and reads no pickle."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        history = history_of(study)
        if history is None:
            return super().infer_relative_search_space(study, trial)
        shown = Shown(history, asked=trial.number, reads_pruned=False)
        return {
            name: one
            for name, one in shown.space().items()
            if isinstance(one, FloatDistribution | IntDistribution) and not one.single()
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        ended = self._get_trials(study)
        if not search_space or len(ended) < self._n_startup_trials:
            return {}
        space = _SearchSpaceTransform(search_space, transform_step=True, transform_0_1=True)
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        optimizer, is_new = self._computed(ended, space, sign)
        solutions = _solutions(ended, optimizer, space, sign)
        if solutions is not None:
            told = {"generation": optimizer.generation, "solutions": _plain(solutions)}
            study._storage.set_trial_system_attr(trial._trial_id, _TOLD, told)
            optimizer.tell(solutions)
        if is_new:
            # Optuna draws a seed for a new optimizer, and then this one.
            self._cma_rng.rng.randint(1, 2**31 - 2)
        optimizer.reseed_rng(self._cma_rng.rng.randint(1, 2**16) + trial.number)
        proposed = optimizer.ask()
        study._storage.set_trial_system_attr(trial._trial_id, _GENERATION, optimizer.generation)
        return space.untransform(proposed)

    def _computed(
        self, ended: Sequence[FrozenTrial], space: _SearchSpaceTransform, sign: float
    ) -> tuple[cmaes.CMA, bool]:
        """The optimizer after all that it was told; and whether it was told nothing yet."""
        # This import takes 0.3 s, and a run's own process proposes nothing.
        import cmaes

        size = len(space.bounds)
        middle = space.bounds.mean(axis=1)
        widths = space.bounds[:, 1] - space.bounds[:, 0]
        optimizer = cmaes.CMA(
            mean=middle,
            sigma=max(float(widths.min()) / 6, 1e-10),
            bounds=space.bounds,
            n_max_resampling=10 * size,
        )
        records: dict[int, Any] = {}
        latest = 0
        for trial in ended:
            told = trial.system_attrs.get(_TOLD)
            if isinstance(told, dict) and isinstance(told.get("generation"), int):
                records[told["generation"]] = told.get("solutions")
            # A study that an earlier version began has pickles in their place.
            if told is not None or any(key.startswith(_PICKLE) for key in trial.system_attrs):
                latest = max(latest, trial.system_attrs.get(_GENERATION, 0))
        while optimizer.generation < latest:
            solutions = _read(records.get(optimizer.generation), optimizer)
            if solutions is None:
                solutions = _solutions(ended, optimizer, space, sign)
            if solutions is None:
                break
            optimizer.tell(solutions)
            # Optuna's pickle keeps one half of the symmetric matrix; so does a copy.
            optimizer = copy.deepcopy(optimizer)
        return optimizer, latest == 0


def refuse_pickles(sampler: BaseSampler) -> None:
    """Refuse a user's sampler that is, or holds, Optuna's CMA-ES, which unpickles what it reads."""
    for inner in vars(sampler).values():
        if isinstance(inner, BaseSampler):
            refuse_pickles(inner)
    if isinstance(sampler, CmaEsSampler) and not isinstance(sampler, PlainCmaEs):
        raise ConfigurationError(
            f"{type(sampler).__name__} keeps its state as a pickle in the database, and loading it "
            "executes what anybody has put there; write --sampler cmaes"
        )


def _solutions(
    ended: Sequence[FrozenTrial], optimizer: cmaes.CMA, space: _SearchSpaceTransform, sign: float
) -> list[_Solution] | None:
    """The first trials of the optimizer's generation; None if they are too few."""
    own = [t for t in ended if t.system_attrs.get(_GENERATION, -1) == optimizer.generation]
    if len(own) < optimizer.population_size:
        return None
    chosen = own[: optimizer.population_size]
    return [(space.transform(t.params), sign * t.value) for t in chosen if t.value is not None]


def _plain(solutions: Sequence[_Solution]) -> list[list[float]]:
    return [[*map(float, x), float(value)] for x, value in solutions]


def _read(stored: Any, optimizer: cmaes.CMA) -> list[_Solution] | None:
    """Solutions told earlier, from plain numbers; None if the space has changed."""
    if not isinstance(stored, list) or len(stored) != optimizer.population_size:
        return None
    for row in stored:
        if not isinstance(row, list) or len(row) != optimizer.dim + 1:
            return None
        if not all(isinstance(v, float | int) and math.isfinite(v) for v in row):
            return None
        # Parameters are scaled to [0, 1]; far outside of it nothing of this sampler's was stored.
        if any(abs(v) > 2 for v in row[:-1]):
            return None
    return [(np.array(row[:-1], dtype=float), float(row[-1])) for row in stored]
