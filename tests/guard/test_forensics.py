"""The evidence names the operation that made the first non-finite tensor, and no other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpo.guard import forensics
from hpo.guard.evidence import Evidence
from hpo.guard.float64 import Widened
from hpo.guard.trace import Trace, origin
from hpo.task.random_state import random_state
from models.ris.scene.scenes import SIZES
from objectives import Context, Term
from objectives.ris_covariance import objective
from tests.support.toys import CPU, ToyTask


def examine(spoil, *, precision: str = "fp32", task: ToyTask | None = None) -> Evidence:
    task = task or ToyTask()
    task.sabotage = lambda step, terms, outputs: {**terms, "zeta": spoil(outputs)}
    rng = random_state(CPU)
    return forensics.examine(task, task.batch(0), device=CPU, precision=precision, rng=rng)


def masked_attention(outputs):
    """A −inf that is meant, before a softmax that makes it finite."""
    scores = (outputs @ outputs.T).masked_fill(torch.eye(len(outputs)).bool(), -math.inf)
    return scores.softmax(-1).square().sum()


def test_the_operation_is_the_one_that_made_the_first_nan():
    found = examine(lambda outputs: Term((outputs - outputs).log().sum() * 2 + 1))

    assert (found.term, found.kind, found.direction) == ("zeta", "infinite", "forward")
    assert found.operation == "log"
    assert found.where.startswith("test_forensics.py:")
    assert found.module is None


def test_a_branch_that_a_mask_hides_is_not_blamed_for_another_fault():
    def spoil(outputs):
        hidden = torch.where(outputs > 1e9, (outputs * 0 - 1).sqrt(), outputs)
        return Term(hidden.detach().sum() + (outputs * 0).sum().log())

    assert examine(spoil).operation == "log"


def test_a_hidden_branch_is_blamed_where_its_gradient_is_the_fault():
    found = examine(
        lambda outputs: Term(torch.where(outputs > 1e9, (outputs * 0 - 1).sqrt(), outputs).sum())
    )

    assert (found.direction, found.operation) == ("backward", "sqrt")


def test_a_mask_of_minus_infinity_before_a_softmax_is_not_blamed():
    found = examine(
        lambda outputs: Term(masked_attention(outputs) + (outputs * 0).square().sum().sqrt())
    )

    assert (found.direction, found.operation) == ("backward", "sqrt")


def test_a_finite_batch_gives_no_finding_but_all_figures():
    found = examine(lambda outputs: Term(masked_attention(outputs)))

    assert found.term is None
    assert found.direction is None
    assert found.passes["fp32"].is_finite
    assert found.passes["fp64"].is_finite
    assert set(found.passes["fp64"].grad_norms["fit"]) == {"body", "head"}


def test_the_module_that_an_operation_ran_in_is_named():
    task = ToyTask()
    with torch.no_grad():
        task.head.weight.mul_(1e6)

    found = examine(lambda outputs: Term(outputs.sum() * 0), precision="fp16", task=task)

    assert (found.operation, found.module) == ("linear", "head")
    assert found.passes["fp32"].is_finite
    assert not found.passes["fp16"].is_finite


@pytest.mark.parametrize("name", ["weight", "running_var"])
def test_a_poisoned_weight_or_buffer_is_named_itself(name):
    task = ToyTask()
    norm = nn.BatchNorm1d(8).eval()
    task.body.append(norm)
    with torch.no_grad():
        getattr(norm, name)[0] = math.nan

    found = examine(lambda outputs: Term(outputs.sum() * 0), task=task)

    assert (found.direction, found.parameter) == ("weights", f"body.3.{name}")


def test_a_poisoned_part_of_the_batch_is_named():
    task = ToyTask(label=lambda y: torch.full_like(y, math.inf))

    found = examine(lambda outputs: Term(outputs.sum() * 0), task=task)

    assert (found.term, found.direction, found.handed_in) == ("fit", "batch", "y")


def test_only_the_sum_of_finite_terms_overflows():
    task = ToyTask()

    found = examine(lambda outputs: Term(outputs.sum() * 0 + 3e38), task=task)
    task.sabotage = lambda step, terms, outputs: {
        name: Term(outputs.sum() * 0 + 3e38) for name in ("zeta", "eta")
    }
    rng = random_state(CPU)
    both = forensics.examine(task, task.batch(0), device=CPU, precision="fp32", rng=rng)

    assert found.term is None
    assert found.direction is None
    assert (both.term, both.operation) == (None, "the sum of its terms")


def test_eigh_of_equal_eigenvalues_is_advised_on():
    factor = torch.randn(144, 5, generator=torch.Generator().manual_seed(0))

    def spoil(outputs):
        covariance = outputs.mean() * factor @ factor.T + 0.1 * torch.eye(144)
        return Term(torch.linalg.eigh(covariance)[1][:, -1].sum())

    found = examine(spoil)

    assert found.operation == "linalg_eigh"
    assert "eigh_signal" in found.advice
    (spectrum,) = found.spectra
    # Rank 5 of 144: 139 noise eigenvalues are equal, 138 pairs of neighbours.
    assert (spectrum.shape, spectrum.ties) == ((144, 144), 138)
    assert spectrum.smallest_gap < 1e-6
    assert spectrum.condition > 10


def test_what_float64_cannot_run_is_said_and_costs_nothing(monkeypatch):
    def refuse(outputs):
        if outputs.dtype == torch.float64:
            raise TypeError("only float32 here")
        return Term((outputs * 0).sum().log())

    found = examine(refuse)

    assert found.operation == "log"
    assert found.passes["fp64"].error == "TypeError: only float32 here"


def test_widened_code_computes_what_float64_would():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
    x = torch.randn(5, 4)

    def loss(net, x):
        constant = torch.ones(2, 2) / 3
        out = net(x) @ constant.to(torch.float32)
        return torch.complex(out[:, 0], out[:, 1]).abs().float().log().sum()

    widened = Widened(list(net.parameters()))
    with widened:
        value = loss(net, x)
    gradients = torch.autograd.grad(value, widened.leaves)

    wide = nn.Sequential(*list(net)).double()
    expected = torch.complex(*((wide(x.double()) @ (torch.ones(2, 2).double() / 3)).T))
    expected = expected.abs().log().sum()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, wide.parameters())):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("view", ["T", "mT", "H", "mH", "real"])
def test_a_parameter_that_is_used_through_a_view_gets_its_gradient_in_float64(view):
    weight = nn.Parameter(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))

    widened = Widened([weight])
    with widened:
        value = getattr(weight, view).square().sum()
    (gradient,) = torch.autograd.grad(value, widened.leaves)

    torch.testing.assert_close(gradient, 2 * weight.detach().double(), rtol=1e-15, atol=0)


@pytest.mark.acceptance
def test_the_flagship_can_be_examined_in_every_precision():
    context = Context(
        device=CPU,
        size="unit",
        epochs=2,
        seed=0,
        problem_seed=SIZES["unit"].problem_seed,
        options={"installation": "fixed"},
    )
    task = objective.build(objective.defaults("wide"), context)
    rng = random_state(CPU)

    found = forensics.examine(task, task.batch(0), device=CPU, precision="fp16", rng=rng)

    assert [look.error for look in found.passes.values()] == [None] * 3
    for term, value in found.passes["fp32"].terms.items():
        # Single precision against double. In the median scene the error of the span differs by
        # 1e-7, but in one or two of 128 by 2e-3, where a second visit zooms in on another of two
        # candidates that are as likely.
        assert value == pytest.approx(found.passes["fp64"].terms[term], rel=5e-3)
    assert {s.operation for s in found.spectra} >= {"linalg_eigh", "linalg_cholesky_ex"}


def test_an_operation_in_place_is_followed():
    x = torch.ones(3, requires_grad=True)

    with Trace(modules={}, named={}) as trace:
        y = x * 1
        y[1] = math.nan
        value = (y + 1).sum()

    assert origin(trace.of(value)).name == "__setitem__"


def test_an_operation_in_place_on_a_view_is_followed_to_its_base():
    x = torch.ones(3, 2, requires_grad=True)

    with Trace(modules={}, named={}) as trace:
        y = x * 1
        y[1].mul_(math.inf)
        value = (y + 1).sum()

    assert origin(trace.of(value)).name == "mul_"


def test_a_nan_is_followed_past_an_infinite_mask_beside_it():
    x = torch.ones(2, requires_grad=True)

    with Trace(modules={}, named={}) as trace:
        mask = torch.full((2,), -math.inf)
        bad = (x - 2).sqrt()
        value = torch.cat([mask, bad]).softmax(0).sum()

    assert origin(trace.of(value)).name == "sqrt"
