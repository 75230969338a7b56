"""Optuna's pruners on columns: the same decisions without Optuna's objects of all trials.

A percentile asks for what complete trials reported at a step, successive halving and Hyperband for
the values that trials noted at rungs. `tests/search/test_pruners.py` holds them against Optuna's.
Border: on a storage that keeps no history each is Optuna's own pruner.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import accumulate

import numpy as np
import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.pruners._percentile import (
    _get_best_intermediate_result_over_steps,
    _is_first_in_interval_step,
)
from optuna.pruners._successive_halving import (
    _completed_rung_key,
    _get_current_rung,
    _is_trial_promotable_to_next_rung,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.search.columns import history_of


def reads_running(pruner: BasePruner) -> bool:
    """True if a decision depends on trials that run, so that all reports are to be stored first.

    A pruner of the user's may read anything.
    """
    return getattr(pruner, "reads_running", not isinstance(pruner, NopPruner))


class ColumnPercentilePruner(PercentilePruner):
    """Optuna's percentile pruner; its median pruner is that of 50 percent."""

    reads_running = False

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        history = history_of(study)
        if history is None:
            return super().prune(study, trial)
        step = trial.last_step
        is_early = step is None or step < self._n_warmup_steps
        count = np.count_nonzero(history.rows["state"] == TrialState.COMPLETE.value)
        if step is None or is_early or count < max(1, self._n_startup_trials):
            return False
        steps = trial.intermediate_values.keys()
        if not _is_first_in_interval_step(step, steps, self._n_warmup_steps, self._interval_steps):
            return False
        best = _get_best_intermediate_result_over_steps(trial, study.direction)
        if math.isnan(best):
            return True
        others = history.reports.get(step, ())
        if len(others) < self._n_min_trials:
            return False
        is_maximized = study.direction == StudyDirection.MAXIMIZE
        percentile = 100 - self._percentile if is_maximized else self._percentile
        limit = float(np.nanpercentile(np.array(others), percentile))
        # Where nobody reported a number, nothing is worse.
        return best < limit if is_maximized else best > limit


class ColumnHalvingPruner(SuccessiveHalvingPruner):
    """Optuna's successive halving, from a given least resource."""

    reads_running = True

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        history = history_of(study)
        if history is None or self._min_resource is None:
            return super().prune(study, trial)
        return _is_halved(self, study, trial, history.rungs)


class ColumnHyperbandPruner(BasePruner):
    """Optuna's Hyperband: successive halving for each bracket of trials.

    It is none of Optuna's class: else Optuna would make a study of the bracket for each suggestion,
    with two queries. Its samplers see no difference, because they do not read the trials through
    the method that such a study filters.
    """

    reads_running = True

    def __init__(self, inner: HyperbandPruner) -> None:
        self._inner = inner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        history, inner = history_of(study), self._inner
        if history is None or inner._max_resource == "auto":
            return inner.prune(study, trial)
        if not inner._pruners:
            inner._try_initialization(study)
        name, budgets = study.study_name, tuple(inner._trial_allocation_budgets)
        own = _bracket_of(name, trial.number, budgets)

        def is_rival(number: int) -> bool:
            return _bracket_of(name, number, budgets) == own

        return _is_halved(inner._pruners[own], study, trial, history.rungs, is_rival=is_rival)


# A worker makes the pruner anew for each trial, and a trial's bracket never changes.
@lru_cache(maxsize=1 << 17)
def _bracket_of(study_name: str, number: int, budgets: tuple[int, ...]) -> int:
    """The bracket of a trial, as Optuna's Hyperband deals them out."""
    left = binascii.crc32(f"{study_name}_{number}".encode()) % sum(budgets)
    return next(one for one, most in enumerate(accumulate(budgets)) if left < most)


def _is_halved(
    pruner: SuccessiveHalvingPruner,
    study: optuna.Study,
    trial: FrozenTrial,
    rungs: Mapping[str, Mapping[int, float]],
    *,
    is_rival: Callable[[int], bool] | None = None,
) -> bool:
    """Return whether a trial ends at the next rung that it has reached, as Optuna decides it.

    Args:
        rungs: The values that trials noted at rungs, by number.
        is_rival: Tells a bracket's trials by their numbers; None if all compete.
    """
    step, rung = trial.last_step, _get_current_rung(trial)
    if step is None:
        return False
    value, factor = trial.intermediate_values[step], pruner._reduction_factor
    assert pruner._min_resource is not None
    while step >= pruner._min_resource * factor ** (pruner._min_early_stopping_rate + rung):
        if math.isnan(value):
            return True
        name = _completed_rung_key(rung)
        study._storage.set_trial_system_attr(trial._trial_id, name, value)
        noted = rungs.get(name, {})
        competing = [
            *(other for number, other in noted.items() if is_rival is None or is_rival(number)),
            value,
        ]
        # The trial's own value is one of them.
        if len(competing) <= pruner._bootstrap_count:
            return True
        if not _is_trial_promotable_to_next_rung(value, competing, factor, study.direction):
            return True
        rung += 1
    return False
