"""The samplers by name, each of which learns from divergence without a penalty value.

Border: what a sampler reads is decided here; what is stored of a trial is the worker's. A sampler
gets a view of the study in which a diverged trial is an infeasible point. The study itself is
never changed: no value in it is invented, whichever program reads it.

Of Optuna's samplers only TPE reads pruned trials. The others would propose the diverging
region again and again, and find nothing in a study whose pruner ends most trials.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Container, Iterable, Sequence
from statistics import median
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

# A trial's system attribute: the metric of its untrained network.
UNTRAINED = "hpo:untrained"
# A trial's user attribute: the number of the diverged trial that it repeats in a wider precision.
RERUN_OF = "rerun_of"

_CONSTRAINTS = "constraints"

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
    """A sampler of Optuna's that sees a study through `seen_by`, its own otherwise.

    Args:
        reads_pruned: Whether `inner` itself reads pruned trials and their constraints, as TPE does.
    """

    def __init__(self, inner: BaseSampler, *, reads_pruned: bool = False) -> None:
        self.inner, self._reads_pruned = inner, reads_pruned

    def _view(self, study: optuna.Study) -> optuna.Study:
        # What samplers use of a study, not all that a study is.
        return cast(optuna.Study, _View(study, reads_pruned=self._reads_pruned))

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
        self.inner.after_trial(self._view(study), _constrained(trial, {}), state, values)

    def reseed_rng(self) -> None:
        self.inner.reseed_rng()


class _View:
    """A study whose trials are those of `seen_by`; everything else is the study's own."""

    def __init__(self, study: optuna.Study, *, reads_pruned: bool) -> None:
        self._study, self._reads_pruned = study, reads_pruned
        # Hyperband hands out one of its brackets; a rerun may be in another.
        self._whole: optuna.Study = getattr(study, "_study", study)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = self._study._get_trials(deepcopy=False, use_cache=use_cache)
        known = trials
        if self._whole is not self._study:
            known = self._whole._get_trials(deepcopy=False, use_cache=use_cache)
        seen = without_superseded(trials, known)
        if not self._reads_pruned:
            seen = as_complete(seen, self._study.direction)
        found = [trial for trial in seen if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._get_trials()


def without_superseded(
    trials: Sequence[FrozenTrial], known: Sequence[FrozenTrial]
) -> list[FrozenTrial]:
    """The trials but for those that were repeated: the rerun is the truth of a configuration.

    A rerun takes over what a sampler noted on the trial that it repeats, for example its
    generation. One that failed says nothing, and the first verdict stands.
    """
    numbered = {trial.number: trial for trial in known}
    repeated = {
        trial.number: numbered[_repeats(trial)]
        for trial in known
        if trial.state != TrialState.FAIL and _repeats(trial) in numbered
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
    - A diverged trial is complete, its constraint violated, at the value of its untrained network
      (the median of the others' where nobody noted its own), or at the worst value of a trial that
      did not diverge if that is worse: CMA-ES knows no constraints, and where training gains little
      the untrained value would look like a success. Without either value it is left out.
    - All have the same constraints, as the Gaussian process demands, or none if none is violated.
    """
    worse = min if direction == StudyDirection.MAXIMIZE else max
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    diverged = [t for t in ended if t.state == TrialState.PRUNED and _is_violated(t)]
    values = {trial.number: _reached(trial) for trial in ended}
    for trial in diverged:
        values[trial.number] = None
    reached = [value for value in values.values() if value is not None and math.isfinite(value)]
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
    """The number of the earlier trial that this one repeats, -1 if none."""
    number = trial.user_attrs.get(RERUN_OF)
    return number if isinstance(number, int) and number < trial.number else -1


def _is_violated(trial: FrozenTrial) -> bool:
    """Whether any of a trial's constraints is."""
    return any(value > 0 for value in trial.constraints.values())


def _untrained(trial: FrozenTrial) -> float | None:
    """The value of the trial's network before its first step, if somebody noted it."""
    value = trial.system_attrs.get(UNTRAINED)
    return float(value) if value is not None and math.isfinite(value) else None


def _reached(trial: FrozenTrial) -> float | None:
    """The value of a complete trial, or what a pruned one reported last."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    step = trial.last_step
    value = None if step is None else trial.intermediate_values[step]
    return value if value is not None and math.isfinite(value) else None


def _complete(trial: FrozenTrial, value: float, names: Iterable[str]) -> FrozenTrial:
    """The trial complete at a value, with these constraints; itself where it is that."""
    limits = {name: trial.constraints.get(name, 0.0) for name in sorted(names)}
    if trial.state == TrialState.COMPLETE and trial.constraints == limits:
        return trial
    changed = _constrained(trial, limits)
    changed.state, changed.value = TrialState.COMPLETE, value
    return changed


def _constrained(trial: FrozenTrial, limits: dict[str, float]) -> FrozenTrial:
    """A copy of the trial with these constraints alone."""
    changed = copy.copy(trial)
    changed.system_attrs = _without_constraints(trial)
    for name, value in limits.items():
        changed.set_constraint(name, value)
    return changed


def _without_constraints(trial: FrozenTrial) -> dict[str, Any]:
    # Also the form that Optuna wrote up to version 4: one list.
    return {
        key: value
        for key, value in trial.system_attrs.items()
        if key.partition(":")[0] != _CONSTRAINTS
    }


def _taking_over(trial: FrozenTrial, repeated: dict[int, FrozenTrial]) -> FrozenTrial:
    """A copy of a rerun with the attributes of what it repeats, where it has none of its own."""
    changed = copy.copy(trial)
    first = trial
    while first.number in repeated:
        first = repeated[first.number]
        changed.system_attrs = {**_without_constraints(first), **changed.system_attrs}
    return changed
