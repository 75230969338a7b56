"""An Optuna storage in memory that keeps a history, and studies with trials of every kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.database.history import History
from hpo.search.hopeless import LOST
from hpo.search.sampler_view import RERUN_OF, UNTRAINED

SPACE: dict[str, BaseDistribution] = {
    "plain": FloatDistribution(-3.0, 5.0),
    "log": FloatDistribution(1e-5, 1e-1, log=True),
    "stepped": FloatDistribution(0.0, 2.0, step=0.25),
    "whole": IntDistribution(1, 9),
    "even": IntDistribution(2, 20, step=2),
    "width": IntDistribution(4, 700, log=True),
    "kind": CategoricalDistribution(("a", None, True, 2.5)),
    "single": FloatDistribution(0.5, 0.5),
    "only": CategoricalDistribution(("x",)),
}
# Parameters that some trials lack, or have with another range.
ONLY_A: dict[str, BaseDistribution] = {
    "momentum": FloatDistribution(0.0, 1.0),
    "depth": IntDistribution(1, 4),
}
WIDER: dict[str, BaseDistribution] = {"plain": FloatDistribution(-9.0, 9.0)}


class Columns(InMemoryStorage):
    """Optuna's storage in memory, which hands out its trials in columns."""

    def history(self, study_id: int) -> History:
        return History.of(self.get_all_trials(study_id, deepcopy=False))


def study_of(
    trials: Iterable[FrozenTrial],
    *,
    has_columns: bool,
    direction: str = "minimize",
    **search: Any,
) -> optuna.Study:
    """A study in memory with these trials."""
    storage = Columns() if has_columns else InMemoryStorage()
    study = optuna.create_study(storage=storage, direction=direction, study_name="s", **search)
    study.add_trials(trials)
    return study


def some_trials(
    seed: int, count: int, *, only_told: bool = False, is_dynamic: bool = False
) -> list[FrozenTrial]:
    """Trials in every state, with every kind of parameter, report, constraint and rerun.

    Args:
        only_told: Make complete and pruned trials alone.
        is_dynamic: Have some with other parameters, or with other ranges.
    """
    rng = np.random.default_rng(seed)
    return [
        _trial(rng, number, only_told=only_told, is_dynamic=is_dynamic) for number in range(count)
    ]


def _trial(
    rng: np.random.Generator, number: int, *, only_told: bool, is_dynamic: bool
) -> FrozenTrial:
    states = [TrialState.COMPLETE] * 5 + [TrialState.PRUNED] * 3
    if not only_told:
        states += [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    state = states[rng.integers(len(states))]
    params, space = _params(rng, is_dynamic=is_dynamic)
    if state == TrialState.WAITING or (state == TrialState.RUNNING and rng.random() < 0.3):
        params, space = {}, {}
    is_told = state in (TrialState.COMPLETE, TrialState.PRUNED)
    user: dict[str, Any] = {}
    if is_told and rng.random() < 0.1:
        user[RERUN_OF] = int(rng.integers(-1, number + 2))
    if state == TrialState.FAIL and rng.random() < 0.7:
        user["traceback"] = "ValueError"
    is_lost = state == TrialState.FAIL and rng.random() < 0.2
    trial = create_trial(
        state=state,
        # Few values, so that many are equal.
        value=float(rng.choice([0.5, 1.0, rng.normal(), np.inf]))
        if state == TrialState.COMPLETE
        else None,
        params=params,
        distributions=space,
        user_attrs=user,
        system_attrs=({LOST: True} if is_lost else {}) | _untrained(rng),
        intermediate_values=_reports(rng) if is_told else {},
        constraints=_constraints(rng) if is_told else None,
    )
    trial.number = number
    return trial


def _params(
    rng: np.random.Generator, *, is_dynamic: bool
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    space = dict(SPACE)
    if is_dynamic:
        space |= WIDER if rng.random() < 0.3 else {}
        space |= ONLY_A if rng.random() < 0.5 else {}
    draw = RandomSampler(seed=int(rng.integers(2**31)))
    study: Any = None
    params = {
        name: draw.sample_independent(study, study, name, distribution)
        for name, distribution in space.items()
    }
    return params, space


def _untrained(rng: np.random.Generator) -> dict[str, float]:
    noted = float(rng.choice([2.0, rng.normal(), np.inf]))
    return {UNTRAINED: noted} if rng.random() < 0.5 else {}


def _reports(rng: np.random.Generator) -> dict[int, float]:
    values = [0.1, 0.2, float(rng.normal()), float("nan"), float("inf")]
    return {step: float(rng.choice(values)) for step in range(1, 1 + rng.integers(5))}


def _constraints(rng: np.random.Generator) -> dict[str, float] | None:
    if rng.random() < 0.7:
        return None
    return {"nonfinite": float(rng.choice([0.0, 1.0])), "other": float(rng.choice([-1.0, 0.25]))}
