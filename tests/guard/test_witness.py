"""The old practice and the guard, on the same bad objective."""

from __future__ import annotations

import math

import pytest
import witness

from hpo.engine.plan import Result
from hpo.guard.evidence import Divergence
from hpo.task.forward import PRECISIONS

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]
STEPS = 20


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_guard_prunes_an_eigh_through_ties_and_names_it(precision):
    verdict = witness.guarded("eigh", precision)

    assert isinstance(verdict, Divergence)
    assert verdict.reason == "grad_nonfinite"
    evidence = verdict.evidence
    assert (evidence.term, evidence.operation) == ("subspace", "linalg_eigh")
    assert evidence.parameter == "net.0.weight"
    # The gradient is NaN from the first step on.
    assert evidence.scales[-1][0] <= 16


def test_the_ordinary_loop_with_a_scaler_trains_nothing_and_says_nothing():
    course = witness.unguarded("eigh", "fp16", steps=STEPS)

    assert course.changed == 0
    assert course.error is None
    assert len(course.losses) == STEPS
    assert all(map(math.isfinite, course.losses))
    # Other scenes at each step, the same weights: no trend, and little spread.
    assert max(course.losses) - min(course.losses) < 0.2 * max(course.losses)
    # Halved at every step, from 65,536.
    assert course.scale == 2.0 ** (16 - STEPS)
    assert course.value < 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_ordinary_loop_without_a_scaler_poisons_the_weights_and_returns_a_penalty(precision):
    course = witness.unguarded("eigh", precision, steps=STEPS)

    assert course.changed == 1
    assert not course.are_weights_finite
    assert "step 2" in course.error
    assert course.value == 1e6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gradient_that_ties_leave_finite_trains_the_same_network(precision):
    course = witness.unguarded("eigh_signal", precision, steps=STEPS)
    result = witness.guarded("eigh_signal", precision, epochs=1)

    # fp16's scaler may take a step or two to find its scale.
    assert course.changed >= STEPS - 2
    assert course.are_weights_finite and course.error is None
    assert isinstance(result, Result)
    assert result.skipped <= 2
