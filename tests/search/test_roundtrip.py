"""An objective gets what the storage gives back: numbers, choices, and both after a rest."""

from __future__ import annotations

import enum
import math
import struct

import numpy
import optuna
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hpo.database.connection import connect
from hpo.database.storage import open_storage
from hpo.errors import ConfigurationError
from hpo.search.narrowing import Narrowing, value_of
from hpo.search.roundtrip import LARGEST
from objectives import Choice, Float, Int, Objective


class Kind(str, enum.Enum):  # noqa: UP042
    A = "a"


class Asking(Objective):
    """An objective that asks for one parameter by a call of its own."""

    name, metric, direction = "asking", "error", "minimize"
    spaces = {"wide": {"x": Float(low=0, high=1, default=0)}}

    def __init__(self, ask) -> None:
        self.ask = ask

    def suggest(self, trial, space):
        return {"x": self.ask(trial)}

    def build(self, params, context):
        raise NotImplementedError


def bits(value) -> object:
    """An identity of a value: type and, of a float, each bit."""
    return (type(value), struct.pack("<d", value) if isinstance(value, float) else value)


@pytest.fixture
def asked(url: str):
    """Ask as a worker does; return what was handed over and what another program reads."""
    storage = open_storage(connect(url))
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))

    def ask(call, fixed=None):
        if fixed is not None:
            study.enqueue_trial({"x": fixed})
        trial = study.ask()
        handed = Narrowing().suggest(Asking(call), trial, "wide")["x"]
        again = Narrowing().suggest(Asking(call), optuna.Trial(study, trial._trial_id), "wide")
        plain = optuna.storages.RDBStorage(url, engine_kwargs={"pool_size": 2})
        stored = plain.get_trial(trial._trial_id).params["x"]
        plain.engine.dispose()
        assert bits(again["x"]) == bits(handed)
        return handed, stored

    yield ask
    storage.engine.dispose()


NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(x=NUMBERS)
@example(x=-0.0)
@example(x=5e-324)
@example(x=-1e308)
@example(x=0.1 + 0.2)
def test_each_double_is_trained_with_the_bits_that_are_recorded(asked, x: float):
    low, high = min(x, 0.0), max(x, 0.0)

    handed, stored = asked(lambda trial: trial.suggest_float("x", low, high), x)

    assert bits(handed) == bits(stored)
    assert handed == x


@pytest.mark.parametrize(
    ("call", "fixed"),
    [
        (lambda t: t.suggest_float("x", 0, 1, step=0.1), None),
        (lambda t: t.suggest_float("x", 0, 1), 1),
        (lambda t: t.suggest_float("x", 1e-300, 1e300, log=True), None),
        (lambda t: t.suggest_float("x", 2, 2), None),
        (lambda t: t.suggest_int("x", 0, LARGEST), LARGEST - 1),
        (lambda t: t.suggest_int("x", 0, LARGEST), None),
        (lambda t: t.suggest_int("x", 0, 9, step=3), None),
        (lambda t: t.suggest_int("x", 1, 1000, log=True), None),
        (lambda t: t.suggest_int("x", 0, 1), True),
        (lambda t: t.suggest_categorical("x", (0, 2)), False),
        (lambda t: t.suggest_categorical("x", (1.0, 2.0)), 1),
        (lambda t: t.suggest_categorical("x", (True, "1")), True),
        (lambda t: t.suggest_categorical("x", (2**53, 2**53 + 1)), 2**53 + 1),
        (lambda t: t.suggest_categorical("x", tuple(numpy.linspace(0, 1, 3))), None),
        (lambda t: t.suggest_categorical("x", ("ä", None)), None),
    ],
)
def test_what_is_handed_over_has_type_and_value_of_what_is_recorded(asked, call, fixed):
    handed, stored = asked(call, fixed)

    assert bits(handed) == bits(stored)
    assert type(handed) in (float, int, bool, str, type(None))


@pytest.mark.parametrize(
    ("call", "fixed", "told"),
    [
        (lambda t: t.suggest_categorical("x", (False, 0, 2)), 0, "False and 0, which are equal"),
        (lambda t: t.suggest_categorical("x", (1, 1.0)), 1, "1 and 1.0, which are equal"),
        (lambda t: t.suggest_categorical("x", tuple(Kind)), Kind.A, "choice <Kind.A: 'a'>"),
        (
            lambda t: t.suggest_int("x", 0, 2**62),
            2**53 + 1,
            "'x' is 9007199254740993, beyond 9007199254740992 .* recorded as 9007199254740992",
        ),
    ],
)
def test_what_would_be_recorded_as_another_value_fails_the_trial(asked, call, fixed, told):
    with pytest.raises(ValueError, match=told):
        asked(call, fixed)


def test_a_whole_number_keeps_each_digit_however_it_is_given():
    big = Choice(choices=(2**53, 2**53 + 1), default=2**53)

    assert value_of("n", big, str(2**53 + 1)) == 2**53 + 1
    assert value_of("n", big, 2**53 + 1) == 2**53 + 1
    assert bits(value_of("n", Int(low=0, high=9999, default=0), "1e3")) == bits(1000)
    assert bits(value_of("x", Float(low=0, high=2, default=1), 1)) == bits(1.0)
    for given_value in (math.nan, "nan", True, 10**400, "1" * 5000):
        with pytest.raises(ConfigurationError):
            value_of("n", Int(low=0, high=9999, default=0), given_value)
