"""TPE on columns: its proposals are Optuna's own, whatever the trials and their number."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import _MixtureOfProductDistribution
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState

from hpo.search import kernels
from hpo.search.columns import Shown, observations
from hpo.search.kernels import gain, log_density
from hpo.search.sampler_view import RERUN_OF, View
from hpo.search.samplers import InformedSampler
from hpo.search.tpe import ColumnTPESampler
from tests.support.columns import ONLY_A, SPACE, WIDER, some_trials, study_of

# A parameter of one value is never sampled.
NAMES = st.sets(st.sampled_from([name for name in SPACE if not SPACE[name].single()]))
SEEDS = st.integers(0, 2**31 - 1)


def proposed(
    trials: list[FrozenTrial],
    *,
    has_columns: bool,
    seed: int,
    direction: str = "minimize",
    pruner: optuna.pruners.BasePruner | None = None,
    reads_pruned: bool = True,
) -> list[str]:
    """Three proposals in a row, the second while the first one still runs."""
    study = study_of(trials, has_columns=has_columns, direction=direction, pruner=pruner)
    found = []
    for number in range(3):
        inner: TPESampler = TPESampler(seed=seed + number)
        if has_columns:
            inner = ColumnTPESampler(seed=seed + number, reads_pruned=reads_pruned)
        study.sampler = InformedSampler(inner, seed=seed, reads_pruned=reads_pruned)
        trial = study.ask()
        for name, distribution in {**SPACE, **ONLY_A, **(WIDER if number else {})}.items():
            trial._suggest(name, distribution)
        found.append(repr(trial.params))
        if number:
            study.tell(trial, float(number))
    return found


@given(
    seed=SEEDS,
    count=st.integers(0, 60),
    is_dynamic=st.booleans(),
    is_largest=st.booleans(),
    reads_pruned=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_proposals_are_those_of_optuna_to_the_bit(
    seed, count, is_dynamic, is_largest, reads_pruned
):
    trials = some_trials(seed, count, is_dynamic=is_dynamic)
    direction = "maximize" if is_largest else "minimize"

    own, optunas = (
        proposed(
            trials,
            has_columns=has_columns,
            seed=seed,
            direction=direction,
            reads_pruned=reads_pruned,
        )
        for has_columns in (True, False)
    )

    assert own == optunas


@pytest.mark.parametrize("count", [200, kernels.EXACT + 300, 1500])
@pytest.mark.parametrize("is_dynamic", [False, True])
def test_among_many_trials_they_are_the_same(count, is_dynamic):
    trials = some_trials(count, count, is_dynamic=is_dynamic)

    own, optunas = (proposed(trials, has_columns=one, seed=3) for one in (True, False))

    assert own == optunas


def test_a_study_of_choices_alone_whose_candidates_tie_proposes_the_same():
    space = {name: CategoricalDistribution(("a", "b", "c")) for name in ("one", "two")}
    trials = [
        optuna.create_trial(
            value=number % 3,
            params={"one": "abc"[number % 2], "two": "abc"[number % 2]},
            distributions=space,
        )
        for number in range(3 * kernels.EXACT)
    ]

    params = []
    for has_columns in (True, False):
        study = study_of(trials, has_columns=has_columns)
        for seed in range(20):
            study.sampler = (ColumnTPESampler if has_columns else TPESampler)(seed=seed)
            asked = study.ask(space)
            params.append(asked.params)
            study.tell(asked, state=TrialState.FAIL)

    assert params[:20] == params[20:]


def test_a_bracket_of_hyperband_changes_nothing_in_either():
    # Optuna's study of a bracket filters `get_trials`, and its samplers call `_get_trials`.
    trials = some_trials(5, 60, only_told=True)
    runs = []
    for has_columns in (True, False):
        pruner = HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=2)
        pruner._try_initialization(study_of([], has_columns=False))
        runs.append(proposed(trials, has_columns=has_columns, seed=1, pruner=pruner))

    assert runs[0] == runs[1] == proposed(trials, has_columns=False, seed=1)


@given(
    seed=SEEDS,
    count=st.integers(0, 60),
    is_largest=st.booleans(),
    reads_pruned=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_trials_are_split_as_optuna_splits_the_view(seed, count, is_largest, reads_pruned):
    direction = "maximize" if is_largest else "minimize"
    trials = some_trials(seed, count, only_told=True) + some_trials(seed, 5)
    study = study_of(trials, has_columns=True, direction=direction)
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    seen = View(study, reads_pruned=reads_pruned).get_trials(states=states)
    history = study._storage.history(0)

    for n_below in range(count + 5):
        shown = Shown(history, asked=-1, reads_pruned=reads_pruned)
        found = shown.split(n_below, study.direction)

        meant = _split_trials(study, seen, n_below)
        assert [numbers.tolist() for numbers in found] == [
            [trial.number for trial in part] for part in meant
        ]


@given(seed=SEEDS, count=st.integers(0, 80))
@settings(max_examples=40, deadline=None)
def test_the_common_space_is_what_optuna_finds_in_the_view(seed, count):
    trials = some_trials(seed, count, is_dynamic=True)
    spaces = []
    for has_columns in (True, False):
        study = study_of(trials, has_columns=has_columns)
        inner = (ColumnTPESampler if has_columns else TPESampler)(seed=0)
        sampler = InformedSampler(inner, reads_pruned=True)
        spaces.append(sampler.infer_relative_search_space(study, study.ask()._cached_frozen_trial))

    assert list(spaces[0].items()) == list(spaces[1].items())


@given(seed=SEEDS, count=st.integers(kernels.EXACT, 900), names=NAMES)
@settings(max_examples=40, deadline=None)
def test_the_density_of_many_kernels_is_optunas(seed, count, names):
    space = {name: SPACE[name] for name in SPACE if name in names | {"plain"}}
    trials = some_trials(seed, count, only_told=True)
    history = study_of(trials, has_columns=True)._storage.history(0)
    ended = Shown(history, asked=-1).ended
    parameters = ColumnTPESampler()._parzen_estimator_parameters
    estimator = _ParzenEstimator(observations(history, ended, space), space, parameters)
    samples = estimator.sample(np.random.RandomState(seed), 24)

    found, meant = log_density(estimator, samples), estimator.log_pdf(samples)

    # Terms of up to 1,250 are summed for each of up to four points, with 2⁻⁵³ of each as error.
    np.testing.assert_allclose(found, meant, rtol=0, atol=1e-11)


@given(
    seed=SEEDS,
    count=st.integers(2, 600),
    is_log=st.booleans(),
    decimals=st.sampled_from([1, 3, 16]),
    clusters=st.integers(0, 30),
)
@settings(max_examples=200, deadline=None)
def test_the_widths_of_many_kernels_are_optunas_to_the_bit(seed, count, is_log, decimals, clusters):
    rng = np.random.default_rng(seed)
    # Crowds with gaps between them, and by rounding several kernels at one value.
    x = (
        rng.random(count)
        if not clusters
        else rng.random(clusters)[rng.integers(0, clusters, count)]
    )
    x = np.clip(np.round(x + rng.normal(0, 0.003, count), decimals), 0, 1)
    low, high = (1e-5, 1e-1) if is_log else (-2.0, 5.0)
    given = {"x": low * (high / low) ** x if is_log else low + (high - low) * x}
    space = {"x": FloatDistribution(low, high, log=is_log)}
    parameters = ColumnTPESampler()._parzen_estimator_parameters

    found, meant = (
        one(given, space, parameters)._mixture_distribution.distributions[0]
        for one in (kernels.Estimator, _ParzenEstimator)
    )

    assert type(found) is type(meant)
    for own, optunas in zip(found, meant, strict=True):
        np.testing.assert_array_equal(own, optunas)


def test_few_kernels_far_from_all_others_are_found_without_their_order():
    # Else the test above would hold of a function that always leaves it to Optuna.
    x = np.append(np.random.default_rng(0).uniform(0.4, 0.6, 5000), [0.0, 0.02, 0.9])

    widths = kernels._widths(x, 1.0)

    assert widths is not None
    assert (widths == 0.01).sum() == 4998


def test_candidates_that_the_prior_alone_reaches_are_told_apart_by_optunas_rounding():
    rng = np.random.default_rng(0)
    space = {name: FloatDistribution(0.0, 1.0) for name in "ab"}
    parameters = ColumnTPESampler()._parzen_estimator_parameters
    good, other = (
        _ParzenEstimator({name: rng.uniform(*where, n) for name in space}, space, parameters)
        for where, n in (((0.1, 0.2), 25), ((0.0, 0.3), 500))
    )
    is_other, would_be_other = [], []
    for seed in range(200):
        samples = good.sample(np.random.RandomState(seed), 24)
        log_good = good.log_pdf(samples)
        best = np.argmax(log_good - other.log_pdf(samples))
        is_other.append(np.argmax(gain(good, other, samples)) != best)
        would_be_other.append(np.argmax(log_good - log_density(other, samples)) != best)

    assert not any(is_other)
    assert any(would_be_other)


def test_a_center_outside_of_the_range_is_weighed_as_optuna_does():
    space = {"x": FloatDistribution(0.0, 1.0), "n": IntDistribution(1, 3)}
    rng = np.random.default_rng(0)
    given = {"x": rng.uniform(-2, 3, 600), "n": rng.integers(-3, 9, 600).astype(float)}
    estimator = _ParzenEstimator(given, space, ColumnTPESampler()._parzen_estimator_parameters)
    samples = {"x": rng.random(24), "n": rng.integers(1, 4, 24).astype(float)}

    np.testing.assert_allclose(
        log_density(estimator, samples), estimator.log_pdf(samples), rtol=0, atol=1e-11
    )


def test_nothing_is_stored_on_the_trial():
    study = study_of(some_trials(0, 40, only_told=True), has_columns=True)
    study.sampler = InformedSampler(ColumnTPESampler(seed=0), reads_pruned=True)

    asked = study.ask(SPACE)

    assert asked._cached_frozen_trial.system_attrs == study.trials[-1].system_attrs == {}


def test_a_first_run_is_not_seen_once_its_rerun_has_ended():
    trials = some_trials(0, 3, only_told=True)
    trials[2].set_user_attr(RERUN_OF, 0)

    history = study_of(trials, has_columns=True)._storage.history(0)

    assert Shown(history, asked=3).ended.tolist() == [1, 2]


def test_columns_are_sampled_without_a_warning():
    study = study_of(some_trials(1, 400, is_dynamic=True), has_columns=True)
    study.sampler = InformedSampler(ColumnTPESampler(seed=0), reads_pruned=True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.ask({**SPACE, **ONLY_A})


def test_optuna_still_has_what_the_sampler_extends():
    sampler = TPESampler(seed=0)
    assert {"_n_startup_trials", "_n_ei_candidates", "_random_sampler", "_rng"} <= vars(
        sampler
    ).keys()
    assert sampler._parzen_estimator_parameters.multivariate
    assert list(inspect.signature(_ParzenEstimator.__init__).parameters)[1:4] == [
        "observations",
        "search_space",
        "parameters",
    ]
    assert _MixtureOfProductDistribution._fields == ("weights", "distributions")
    assert list(inspect.signature(_truncnorm._log_gauss_mass).parameters) == ["a", "b"]
    assert list(inspect.signature(TPESampler._compare).parameters) == [
        "samples",
        "acquisition_func_vals",
    ]
