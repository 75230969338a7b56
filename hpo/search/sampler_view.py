"""The view of a study for a sampler: diverged trials infeasible, reruns in place of first runs.

Border: reads trials, never writes one. The changed trials exist for the sampler alone; every
program that reads the study itself finds measured values.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Iterable, Sequence
from statistics import median
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

# This system attribute of a trial holds the metric of its untrained network.
UNTRAINED = "hpo:untrained"
# This user attribute holds the number of the diverged trial that a rerun repeats in a wider
# precision.
RERUN_OF = "rerun_of"
_TOLD = (TrialState.COMPLETE, TrialState.PRUNED)


class View:
    """A study with other trials for one ask; everything else, writing included, is its own.

    Args:
        reads_pruned: True if the sampler itself reads pruned trials and their constraints.
    """

    def __init__(self, study: optuna.Study, *, reads_pruned: bool) -> None:
        self._study, self._reads_pruned = study, reads_pruned
        self._seen: list[FrozenTrial] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        # A sampler that takes trials as of the ask gets them prepared once.
        seen = self._seen if use_cache else None
        if seen is None:
            seen = without_superseded(self._study._get_trials(deepcopy=False, use_cache=use_cache))
            if not self._reads_pruned:
                seen = as_complete(seen, self._study.direction)
        if use_cache:
            self._seen = seen
        found = [trial for trial in seen if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._get_trials()

    def stop(self) -> None:
        """Do nothing: the budget fixes the number of trials, even if a grid is exhausted."""


def without_superseded(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials without those that a rerun replaces.

    A rerun inherits the attributes that a sampler stored on the trial that it repeats, for example
    its generation. The first verdict stands until the rerun has ended, and if the rerun failed.
    """
    numbered = {trial.number: trial for trial in trials}
    repeated = {
        trial.number: numbered[_repeats(trial)]
        for trial in trials
        if trial.state in _TOLD and _repeats(trial) in numbered
    }
    superseded = {trial.number for trial in repeated.values()}
    return [
        _taking_over(trial, repeated) if trial.number in repeated else trial
        for trial in trials
        if trial.number not in superseded
    ]


def as_complete(trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    """The trials for a sampler that reads complete ones alone.

    - A trial that the pruner ended is complete at its last report.
    - A diverged trial is complete with its constraint violated. Its value is that of its untrained
      network (the median over the other trials if its own was not stored), or the worst value of a
      trial that did not diverge if that is worse: CMA-ES knows no constraints, and where training
      gains little the untrained value would look like a success. Without either value it is left
      out.
    - All have the same constraints, as the Gaussian process demands, or none if none is violated.
    """
    worse = min if direction == StudyDirection.MAXIMIZE else max
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    diverged = [t for t in ended if t.state == TrialState.PRUNED and _is_violated(t)]
    values = {trial.number: _reached(trial) for trial in ended}
    for trial in diverged:
        values[trial.number] = None
    reached = [value for value in values.values() if value is not None]
    noted = [value for trial in ended if (value := _untrained(trial)) is not None]
    for trial in diverged:
        own = _untrained(trial)
        untrained = [own] if own is not None else [median(noted)] if noted else []
        values[trial.number] = worse([*untrained, *reached], default=None)
    is_constrained = any(_is_violated(trial) for trial in ended)
    names = {name for trial in ended for name in trial.constraints} if is_constrained else set()
    shown = []
    for trial in trials:
        if trial.number not in values:
            shown.append(trial)
        elif (value := values[trial.number]) is not None:
            shown.append(_complete(trial, value, names))
    return shown


def _repeats(trial: FrozenTrial) -> int:
    """The number of the earlier trial that this one repeats; -1 if there is none."""
    number = trial.user_attrs.get(RERUN_OF)
    return number if isinstance(number, int) and number < trial.number else -1


def _is_violated(trial: FrozenTrial) -> bool:
    """True if any of a trial's constraints is violated."""
    return any(value > 0 for value in trial.constraints.values())


def _untrained(trial: FrozenTrial) -> float | None:
    """The metric of the trial's network before its first step; None unless stored and finite."""
    value = trial.system_attrs.get(UNTRAINED)
    return float(value) if value is not None and math.isfinite(value) else None


def _reached(trial: FrozenTrial) -> float | None:
    """The value of a complete trial, or the last report of a pruned one if it is finite."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    step = trial.last_step
    value = None if step is None else trial.intermediate_values[step]
    return value if value is not None and math.isfinite(value) else None


def _complete(trial: FrozenTrial, value: float, names: Iterable[str]) -> FrozenTrial:
    """A copy of the trial, complete at a value with these constraints; itself if it is so."""
    limits = {name: trial.constraints.get(name, 0.0) for name in sorted(names)}
    if trial.state == TrialState.COMPLETE and trial.constraints == limits:
        return trial
    changed = constrained(trial, limits)
    changed.state, changed.value = TrialState.COMPLETE, value
    return changed


def constrained(trial: FrozenTrial, limits: dict[str, float]) -> FrozenTrial:
    """A copy of the trial with these constraints and no others."""
    changed = copy.copy(trial)
    # Each constraint has its own key; Optuna up to version 4 stores a list under one key.
    changed.system_attrs = {
        key: value
        for key, value in trial.system_attrs.items()
        if key.partition(":")[0] != "constraints"
    }
    for name, value in limits.items():
        changed.set_constraint(name, value)
    return changed


def _taking_over(trial: FrozenTrial, repeated: dict[int, FrozenTrial]) -> FrozenTrial:
    """A copy of a rerun that inherits missing system attributes from the trials it repeats."""
    changed = copy.copy(trial)
    first = trial
    while first.number in repeated:
        first = repeated[first.number]
        inherited = {
            key: value
            for key, value in first.system_attrs.items()
            # The first run's violation is not the rerun's.
            if key.partition(":")[0] != "constraints"
        }
        changed.system_attrs = {**inherited, **changed.system_attrs}
    return changed
