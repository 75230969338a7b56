"""Small spaces: how many configurations they hold, and the choice of one that no trial has."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.database.history import History, rows_of
from hpo.search.finite import configurations, key_of, keys_in, untried
from objectives import Choice, Float, Int, Objective
from tests.support.columns import some_trials, study_of

SPACE = {
    "a": Choice(choices=(1, 2.5, "x", None, False), default=1),
    "n": Int(low=3, high=6, default=3),
    "log": Int(low=1, high=2, default=1, log=True),
    "fixed": Float(low=0.5, high=0.5, default=0.5),
}
EVERY = [
    {"a": a, "n": n, "log": log, "fixed": 0.5}
    for a, n, log in itertools.product(SPACE["a"].choices, range(3, 7), (1, 2))
]


class Plain(Objective):
    spaces = {"wide": SPACE}

    def build(self, params, context):
        raise NotImplementedError


class Own(Plain):
    def suggest(self, trial, space):
        return {}


@pytest.mark.parametrize(
    ("objective", "space", "count"),
    [
        (Plain(), SPACE, 40),
        (Plain(), {**SPACE, "x": Float(low=0, high=1, default=0)}, None),
        (Plain(), {"n": Int(low=0, high=2**53, default=0)}, 2**53 + 1),
        (Own(), SPACE, None),
    ],
)
def test_choices_and_whole_numbers_are_counted_and_nothing_else(objective, space, count):
    assert configurations(objective, space) == count


def test_each_configuration_comes_once_before_any_comes_again():
    proposed, tried = EVERY[0], set()
    found = []

    while (one := untried(proposed, SPACE, tried, seed=len(tried))) is not None:
        found.append(one)
        tried.add(key_of(one, SPACE))

    assert found[0] is proposed
    assert sorted(map(repr, found)) == sorted(map(repr, EVERY))
    # As long as one of those that differ in one parameter is left, it is one of them.
    assert all(sum(one[name] != proposed[name] for name in one) == 1 for one in found[1:9])


def test_the_same_seed_chooses_the_same_and_a_large_range_is_not_walked_through():
    space = {"n": Int(low=0, high=2**53, default=0)}
    tried = {key_of({"n": n}, space) for n in range(1000)}

    first, again, other = (untried({"n": 5}, space, tried, seed=seed) for seed in (1, 1, 2))

    assert first == again != other


def test_a_number_is_the_same_configuration_whichever_json_made_of_it():
    assert key_of({**EVERY[0], "a": 1.0}, SPACE) == key_of(EVERY[0], SPACE)
    assert key_of({**EVERY[0], "a": True}, SPACE) != key_of(EVERY[0], SPACE)
    assert key_of({"a": 1}, SPACE) is None


def test_a_value_that_is_avoided_is_not_chosen_even_if_nothing_else_is_left():
    space = {"a": Choice(choices=(1, 2), default=1), "b": Choice(choices=("x", "y"), default="x")}
    tried = {key_of({"a": 1, "b": "x"}, space)}

    found = untried({"a": 1, "b": "x"}, space, tried, seed=0, avoided={("a", "2")})
    tried.add(key_of(found, space))

    assert found == {"a": 1, "b": "y"}
    assert untried({"a": 1, "b": "x"}, space, tried, seed=0, avoided={("a", "2")}) is None


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_the_configurations_of_columns_are_those_of_the_trials(seed, count):
    space = {
        "kind": Choice(choices=("a", None, True, 2.5), default="a"),
        "whole": Int(low=1, high=9, default=1),
        "depth": Int(low=1, high=4, default=1),
    }
    trials = some_trials(seed, count, is_dynamic=True)

    found = keys_in(History.of(trials), space, but=2)

    keys = {key_of(trial.params, space) for trial in trials if trial.number != 2}
    assert found == keys - {None}


def test_a_trial_counts_once_it_has_parameters_and_no_more_once_it_is_deleted():
    space = {"whole": Int(low=1, high=9, default=1)}
    study = study_of([], has_columns=True)
    first, second = study.ask(), study.ask()
    history = study._storage.history(0)
    assert keys_in(history, space, but=first.number) == set()

    second.suggest_int("whole", 1, 9)
    study.tell(second, 0.0)
    history.add(rows_of(study.trials[1]))
    found = keys_in(history, space, but=first.number)
    history.forget(second.number)

    assert found == {(str(second.params["whole"]),)}
    assert keys_in(history, space, but=first.number) == set()
