"""A value with which every trial fails is found, named, and proposed no more."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.database.history import History, rows_of
from hpo.fleet.tally import MOST_FAILURES, Before, Tally
from hpo.search.finite import key_of, untried
from hpo.search.hopeless import LOST, hopeless, hopeless_in
from hpo.search.samplers import SAMPLERS, InformedSampler
from objectives import Choice, Int
from tests.support.columns import some_trials, study_of

BATCHES = (1, 8, 16, 32)
SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "batch": CategoricalDistribution(BATCHES),
    "layers": IntDistribution(1, 4),
    "norm": CategoricalDistribution((True, False)),
}
ALL = {
    **SAMPLERS,
    "plugin": lambda seed: InformedSampler(optuna.samplers.QMCSampler(seed=seed), seed=seed),
}


def trial(number: int, *, fails: bool = False, **params: Any) -> FrozenTrial:
    """An ended trial; other parameters run through their values."""
    given = {"lr": 1e-3, "batch": 8, "layers": 1 + number % 4, "norm": number % 2 == 0, **params}
    made = create_trial(
        state=TrialState.FAIL if fails else TrialState.COMPLETE,
        value=None if fails else 1.0,
        params=given,
        distributions={name: SPACE[name] for name in given},
        user_attrs={"traceback": "ValueError"} if fails else {},
    )
    made.number = number
    return made


def trials(*groups: tuple[int, Mapping[str, Any]]) -> list[FrozenTrial]:
    """So many trials of each kind."""
    kinds = [kind for count, kind in groups for _ in range(count)]
    return [trial(number, **kind) for number, kind in enumerate(kinds)]


BAD = {"batch": 1, "fails": True}


def found(given: Sequence[FrozenTrial]) -> list[str]:
    return [one.sentence() for one in hopeless(given)]


def test_a_value_with_which_every_trial_fails_is_named():
    assert found(trials((4, BAD), (8, {}))) == [
        "4 of 4 trials with batch=1 failed, none of the others"
    ]


@pytest.mark.parametrize(
    ("failed", "well", "is_found"), [(2, 100, False), (3, 8, False), (3, 9, True), (4, 6, True)]
)
def test_few_failures_take_many_others_to_be_no_chance(failed: int, well: int, is_found: bool):
    # C(11, 3) = 165, C(12, 3) = 220, C(10, 4) = 210: one in 200 lies between.
    assert bool(found(trials((failed, BAD), (well, {})))) is is_found


def test_one_success_with_the_value_clears_it():
    assert not found(trials((6, BAD), (1, {"batch": 1}), (20, {})))


def test_an_objective_that_always_fails_has_no_hopeless_value():
    assert not found(trials((12, BAD)))
    assert not found(trials((6, BAD), (6, {"fails": True})))


def test_failures_that_fall_at_random_blame_no_value():
    # A third of all trials fails, whatever their batch; three of them have a batch of 1.
    assert not found(trials((3, BAD), (9, {"fails": True}), (24, {})))


def test_two_values_that_fail_are_both_found():
    many = trials((4, BAD), (3, {"layers": 3, "fails": True}), (16, {"layers": 2}))

    assert [str(one) for one in hopeless(many)] == ["batch=1", "layers=3"]
    assert hopeless(many)[0].others_failed == 3
    assert hopeless(many)[1].others_failed == 0


def test_of_two_values_that_only_occur_together_neither_is_blamed():
    together = trials((4, {**BAD, "layers": 3}), (12, {"layers": 2}))

    assert not found(together)


def test_a_fixed_value_is_never_hopeless():
    assert not found(trials((5, {"layers": 2, "fails": True}), (20, {"layers": 2})))


def test_a_trial_that_ended_its_workers_counts_and_one_that_was_ended_from_outside_does_not():
    many = trials((4, BAD), (12, {}))
    for one in many[:4]:
        one.user_attrs = {}
    assert not found(many)

    for one in many[:4]:
        one.system_attrs = {LOST: True}
    assert found(many)


def batches(name: str, *, n_trials: int = 40, seed: int = 0) -> list[int]:
    """The batches that a sampler proposes where every trial with a batch of 1 fails."""
    study = optuna.create_study()
    proposed = []
    for ticket in range(n_trials):
        study.sampler = ALL[name](1000 * seed + ticket)
        asked = study.ask()
        asked.suggest_float("lr", 1e-4, 1e-1, log=True)
        batch = asked.suggest_categorical("batch", BATCHES)
        layers = asked.suggest_int("layers", 1, 4)
        proposed.append(batch)
        if batch == 1 or layers == 2:
            asked.set_user_attr("traceback", "ValueError")
            study.tell(asked, state=TrialState.FAIL)
        else:
            study.tell(asked, asked.params["lr"] * layers)
    return proposed


@pytest.mark.parametrize("name", [name for name in ALL if name != "gp"])
def test_every_sampler_avoids_what_is_hopeless_from_then_on(name: str):
    proposed = batches(name)

    first = next(n for n in range(len(proposed)) if proposed[:n].count(1) >= 3)
    # It takes some trials with other values before the failures are no chance.
    assert 1 in proposed[: first + 12]
    assert 1 not in proposed[28:]
    assert {8, 16, 32} <= set(proposed)
    assert batches(name) == proposed


def test_the_gaussian_process_avoids_it_too():
    study = optuna.create_study()
    for one in trials((4, BAD), (12, {})):
        study.add_trial(one)

    for ticket in range(6):
        study.sampler = SAMPLERS["gp"](ticket)
        asked = study.ask(SPACE)
        assert asked.params["batch"] != 1
        study.tell(asked, 1.0)


def test_what_is_given_is_tried_all_the_same():
    study = optuna.create_study(sampler=SAMPLERS["random"](0))
    for one in trials((4, BAD), (12, {})):
        study.add_trial(one)
    study.enqueue_trial({"batch": 1})

    assert study.ask(SPACE).params["batch"] == 1


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 60), values=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_in_columns_the_same_values_are_found(seed: int, count: int, values: int):
    # Each failure is caused by one of some values, or by chance.
    draw, many = random.Random(seed), []
    bad = draw.sample([("batch", 1), ("batch", 8), ("layers", 3), ("norm", True)], values)
    for number in range(count):
        given = {"batch": draw.choice(BATCHES), "norm": draw.random() < 0.5}
        given |= {"layers": draw.randint(1, 4)} if draw.random() < 0.8 else {}
        fails = any((name, value) in bad for name, value in given.items()) or draw.random() < 0.05
        many.append(trial(number, fails=fails, **given))

    assert hopeless_in(History.of(many)) == hopeless(many)


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_among_trials_of_every_kind_too(seed: int, count: int):
    many = some_trials(seed, count, is_dynamic=True)

    assert hopeless_in(History.of(many)) == hopeless(many)


def test_a_sampler_on_columns_avoids_it():
    study = study_of(trials((4, BAD), (12, {})), has_columns=True)
    for name, make in SAMPLERS.items():
        if name != "gp":
            study.sampler = make(0)
            asked = [study.ask(SPACE).params["batch"] for _ in range(4)]
            assert 1 not in asked, name


def test_of_a_small_space_no_hopeless_value_is_chosen():
    space = {
        "batch": Choice(choices=(1, 8, 16), default=8),
        "layers": Int(low=1, high=3, default=1),
    }
    tried, proposed = {("8", "1")}, {"batch": 8, "layers": 1}
    chosen = []
    for seed in range(8):
        one = untried(proposed, space, tried, seed=seed, avoided={("batch", "1")})
        chosen.append(one and one["batch"])
        tried.add(key_of(one or proposed, space))

    assert 1 not in chosen
    assert chosen[5:] == [None, None, None]


def test_an_integer_is_replaced_by_the_nearest_that_is_allowed():
    study = optuna.create_study(sampler=SAMPLERS["random"](0))
    narrow = {"layers": IntDistribution(3, 1_000_000_000_000)}
    for one in trials((4, {"layers": 3, "fails": True}), (12, {"layers": 2})):
        study.add_trial(one)

    study.sampler.inner.sample_independent = lambda *_: 3
    asked = study.ask(narrow)

    assert asked.params["layers"] == 4


def test_five_failures_in_a_row_of_one_hopeless_value_do_not_end_a_run():
    many = trials((1, {}), (MOST_FAILURES, BAD))
    tally = Tally(1, lambda: rows_of(many[0]))

    tally.take([], Before(latest=many[:1]))
    tally.take(many[1:])

    assert [str(one) for one in tally.hopeless] == ["batch=1"]
    assert not tally.failures
    # The other values fail, too: it was not the value.
    tally.take([trial(6 + n, batch=16, fails=True) for n in range(MOST_FAILURES)])
    assert len(tally.failures) == MOST_FAILURES


def test_five_failures_in_a_row_of_an_objective_that_always_fails_end_it():
    many = trials((MOST_FAILURES + 1, BAD))
    tally = Tally(1, lambda: rows_of(many[0]))

    tally.take([], Before(latest=many[:1], failures=1))
    tally.take(many[1:])

    assert len(tally.failures) == MOST_FAILURES
