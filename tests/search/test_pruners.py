"""The pruners on columns decide as Optuna's own do, report by report."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.pruners import _percentile as percentile
from optuna.pruners import _successive_halving as successive_halving
from optuna.trial import FrozenTrial, TrialState

from hpo.search.column_pruners import (
    ColumnHalvingPruner,
    ColumnHyperbandPruner,
    ColumnPercentilePruner,
    reads_running,
)
from hpo.search.pruners import PRUNERS, make_pruner
from tests.support.columns import some_trials, study_of

OPTUNAS: dict[str, Callable[[int], BasePruner]] = {
    "median": lambda epochs: MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 6)),
    "percentile": lambda epochs: PercentilePruner(
        25.0, n_startup_trials=5, n_warmup_steps=max(1, epochs // 6)
    ),
    "sha": lambda epochs: SuccessiveHalvingPruner(
        min_resource=max(1, epochs // 6), reduction_factor=2
    ),
    "hyperband": lambda epochs: HyperbandPruner(
        min_resource=max(1, epochs // 6), max_resource=epochs, reduction_factor=2
    ),
    "none": lambda _: NopPruner(),
}
SEEDS = st.integers(0, 2**31 - 1)


def decisions(
    pruner: BasePruner, *, has_columns: bool, seed: int, direction: str, epochs: int = 12
) -> list[tuple[int, int, bool]]:
    """The decisions on trials that report in a random order, after some that ended before."""
    rng = np.random.default_rng(seed)
    earlier = some_trials(seed, int(rng.integers(20)))
    study = study_of(earlier, has_columns=has_columns, direction=direction, pruner=pruner)
    running = [study.ask() for _ in range(8)]
    found = []
    while running:
        trial = running[rng.integers(len(running))]
        epoch = (study.trials[trial.number].last_step or 0) + int(rng.integers(1, 3))
        value = float(rng.choice([rng.normal(), rng.normal(), 0.5, np.nan, np.inf, -np.inf]))
        trial.report(value, epoch)
        with warnings.catch_warnings():
            # Both say that all values of a trial are NaN.
            warnings.simplefilter("ignore", RuntimeWarning)
            is_pruned = trial.should_prune()
        found.append((trial.number, epoch, is_pruned))
        if is_pruned or epoch >= epochs:
            running.remove(trial)
            state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
            study.tell(trial, None if is_pruned else 0.0, state=state)
            if len(found) < 120:
                running.append(study.ask())
    return found


def compared(own: BasePruner, optunas: BasePruner, *, seed: int, is_largest: bool) -> None:
    direction = "maximize" if is_largest else "minimize"
    assert decisions(own, has_columns=True, seed=seed, direction=direction) == decisions(
        optunas, has_columns=False, seed=seed, direction=direction
    )


@pytest.mark.parametrize("name", PRUNERS)
@given(seed=SEEDS, is_largest=st.booleans())
@settings(max_examples=15, deadline=None)
def test_decisions_are_optunas(name, seed, is_largest):
    compared(PRUNERS[name](12), OPTUNAS[name](12), seed=seed, is_largest=is_largest)


@given(
    seed=SEEDS,
    is_largest=st.booleans(),
    share=st.floats(0, 100),
    startup=st.integers(0, 12),
    warmup=st.integers(0, 6),
    interval=st.integers(1, 4),
    least=st.integers(1, 6),
)
@settings(max_examples=25, deadline=None)
def test_a_percentile_decides_as_optunas_whatever_its_settings(
    seed, is_largest, share, startup, warmup, interval, least
):
    own, optunas = (
        kind(share, startup, warmup, interval, n_min_trials=least)
        for kind in (ColumnPercentilePruner, PercentilePruner)
    )

    compared(own, optunas, seed=seed, is_largest=is_largest)


@given(
    seed=SEEDS,
    is_largest=st.booleans(),
    factor=st.integers(2, 4),
    least=st.integers(1, 3),
    bootstrap=st.integers(0, 3),
)
@settings(max_examples=20, deadline=None)
def test_halving_and_its_brackets_decide_as_optunas_whatever_their_settings(
    seed, is_largest, factor, least, bootstrap
):
    shared = {"min_resource": least, "reduction_factor": factor, "bootstrap_count": bootstrap}

    own: BasePruner = ColumnHalvingPruner(**shared)
    compared(own, SuccessiveHalvingPruner(**shared), seed=seed, is_largest=is_largest)
    own = ColumnHyperbandPruner(HyperbandPruner(max_resource=12, **shared))
    optunas = HyperbandPruner(max_resource=12, **shared)
    compared(own, optunas, seed=seed, is_largest=is_largest)


@pytest.mark.parametrize("name", PRUNERS)
def test_on_a_storage_without_columns_it_is_optunas_pruner(name):
    found, meant = (
        decisions(make(12), has_columns=False, seed=7, direction="minimize")
        for make in (PRUNERS[name], OPTUNAS[name])
    )

    assert found == meant


def test_some_trials_are_pruned_and_some_are_not_by_each():
    for name in ("median", "percentile", "sha", "hyperband"):
        answers = {
            is_pruned
            for _, _, is_pruned in decisions(
                PRUNERS[name](12), has_columns=True, seed=1, direction="minimize"
            )
        }
        assert answers == {True, False}, name


class Whole(BasePruner):
    """A user's pruner, which reads all trials."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return len(study.get_trials(deepcopy=False)) > 3


def test_each_pruner_says_whether_it_reads_running_trials():
    found = {name: reads_running(make_pruner(name, epochs=12)) for name in PRUNERS}

    assert found == {
        "median": False,
        "percentile": False,
        "sha": True,
        "hyperband": True,
        "none": False,
    }
    assert reads_running(Whole())
    assert reads_running(MedianPruner())


def test_optuna_still_has_what_the_pruners_extend():
    halving = SuccessiveHalvingPruner(min_resource=3, min_early_stopping_rate=1)
    assert (halving._min_resource, halving._min_early_stopping_rate) == (3, 1)
    assert (halving._reduction_factor, halving._bootstrap_count) == (4, 0)
    assert HyperbandPruner()._pruners == []
    assert list(inspect.signature(HyperbandPruner._try_initialization).parameters) == [
        "self",
        "study",
    ]
    assert list(
        inspect.signature(successive_halving._is_trial_promotable_to_next_rung).parameters
    ) == ["value", "competing_values", "reduction_factor", "study_direction"]
    assert HyperbandPruner()._trial_allocation_budgets == []
    assert list(inspect.signature(percentile._is_first_in_interval_step).parameters) == [
        "step",
        "intermediate_steps",
        "n_warmup_steps",
        "interval_steps",
    ]
    assert callable(percentile._get_best_intermediate_result_over_steps)
