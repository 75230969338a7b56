"""Optuna's pruners on columns: the same decisions without Optuna's objects of all trials.

A percentile asks for what complete trials reported at a step. Successive halving and Hyperband ask
for the values that trials noted at rungs; they run as Optuna has them, on a study whose trials have
those alone. Border: on a storage that keeps no history each is Optuna's own pruner.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Container
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple, cast

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
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.database.history import ABSENT, History
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


class ColumnHalvingPruner(BasePruner):
    """Optuna's successive halving, or Hyperband, which is one for each bracket of trials.

    The study's own pruner is none of Optuna's Hyperband: else Optuna would make a study of the
    bracket for each suggestion, with two queries. Its samplers see no difference, because they do
    not read the trials through the method that such a study filters.
    """

    reads_running = True

    def __init__(self, inner: SuccessiveHalvingPruner | HyperbandPruner) -> None:
        self._inner = inner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        history = history_of(study)
        shown = study if history is None else cast(optuna.Study, _Rungs(study, history))
        return self._inner.prune(shown, trial)


class ColumnHyperbandPruner(HyperbandPruner):
    """Optuna's Hyperband, which finds a bracket's trials in columns, for `ColumnHalvingPruner`."""

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        budgets = tuple(self._trial_allocation_budgets)
        return _bracket_of(study.study_name, trial.number, budgets) if budgets else 0

    def _create_bracket_study(self, study: optuna.Study, bracket_id: int) -> optuna.Study:
        if not isinstance(study, _Rungs):
            return super()._create_bracket_study(study, bracket_id)
        name, budgets = study.study_name, tuple(self._trial_allocation_budgets)
        numbers = range(study.history.size)
        bracket = _Rungs(
            study.study,
            study.history,
            only={number for number in numbers if _bracket_of(name, number, budgets) == bracket_id},
        )
        return cast(optuna.Study, bracket)


# A worker makes the pruner anew for each trial, and a trial's bracket never changes.
@lru_cache(maxsize=1 << 17)
def _bracket_of(study_name: str, number: int, budgets: tuple[int, ...]) -> int:
    """The bracket of a trial, as Optuna's Hyperband deals them out."""
    left = binascii.crc32(f"{study_name}_{number}".encode()) % sum(budgets)
    return next(one for one, most in enumerate(accumulate(budgets)) if left < most)


class _Trial(NamedTuple):
    """The part of a trial that successive halving reads.

    Attributes:
        system_attrs: The values that it noted at rungs.
    """

    number: int
    state: TrialState
    last_step: int | None
    system_attrs: dict[str, float]


class _Rungs:
    """A study whose trials are those that noted a value at a rung.

    Args:
        only: The numbers of a bracket's trials; None for all.
    """

    def __init__(
        self, study: optuna.Study, history: History, *, only: Container[int] | None = None
    ) -> None:
        self.study, self.history, self._only = study, history, only
        self._storage, self.direction = study._storage, study.direction

    @cached_property
    def study_name(self) -> str:
        return self.study.study_name

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[_Trial]:
        noted: dict[int, dict[str, float]] = {}
        for name, values in self.history.rungs.items():
            for number, value in values.items():
                if self._only is None or number in self._only:
                    noted.setdefault(number, {})[name] = value
        all_states = self.history.rows["state"].tolist()
        steps = self.history.rows["last_step"].tolist()
        found = [
            _Trial(number, _STATES[all_states[number]], _step(steps[number]), rungs)
            for number, rungs in noted.items()
            if all_states[number] != ABSENT
        ]
        return [trial for trial in found if states is None or trial.state in states]


_STATES = {state.value: state for state in TrialState}


def _step(stored: int) -> int | None:
    return stored if stored >= 0 else None
