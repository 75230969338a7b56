"""The verdict: healthy trials live, true divergences die within 16 steps and are named."""

from __future__ import annotations

import math

import pytest
import torch

from hpo import engine, guard
from hpo.engine import Plan
from hpo.errors import Divergence
from objectives import Term
from tests.toys import CPU, Log, ToyTask, weights


def train(task: ToyTask, *, precision: str = "fp32", epochs: int = 6) -> tuple[object, Log]:
    log = Log()
    plan = Plan(epochs=epochs, precision=precision, device=CPU, metric="error")
    try:
        return engine.train(task, plan, log), log
    except Divergence as verdict:
        return verdict, log


def from_step(first: int, spoil, last: int = 10**9):
    def sabotage(step, terms, outputs):
        if not first <= step <= last:
            return terms
        return {**terms, "zeta": Term(spoil(outputs))}

    return sabotage


def nan_by_sqrt(outputs):
    # Finite forward, and 1/0 · 0 = NaN backward.
    return (outputs * 0.0).square().sum().sqrt()


def infinite(outputs):
    return outputs.sum() * 0 + math.inf


def steep(outputs):
    # The gradient of each output is 1e37; in the sum over the body it exceeds fp32.
    return (outputs * 1e30).square().sum()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("spoil", "reason", "clause"),
    [
        (nan_by_sqrt, "grad_nonfinite", "gradient of 'zeta' is NaN in 'body.0.weight'"),
        (infinite, "loss_nonfinite", "loss term 'zeta' is infinite"),
        (steep, "loss_nonfinite", "loss term 'zeta' is infinite"),
    ],
)
@pytest.mark.parametrize("first", [0, 5, 22])
def test_a_true_divergence_is_pruned_within_16_steps_and_named(
    precision, spoil, reason, clause, first
):
    task = ToyTask(sabotage=from_step(first, spoil))

    verdict, _ = train(task, precision=precision)

    assert isinstance(verdict, Divergence)
    assert verdict.reason == reason
    assert clause in verdict.detail
    assert task.step + 1 - first <= 16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_non_finite_step_never_reaches_the_weights(precision):
    spoiled, clean = ToyTask(sabotage=from_step(4, nan_by_sqrt, 4)), ToyTask()

    result, log = train(spoiled, precision=precision, epochs=2)
    train(clean, precision=precision, epochs=2)

    assert result.skipped == 1
    assert log.epochs[-1].skipped == 1
    assert torch.isfinite(weights(spoiled)).all()
    # One step of 20 was left out, and one only.
    assert not torch.equal(weights(spoiled), weights(clean))


def test_overflows_of_a_scaler_that_searches_prune_nobody():
    # A loss of this size overflows fp16's largest number until the scale has come down.
    big = from_step(0, lambda outputs: 3000 * outputs.square().mean())

    result, log = train(ToyTask(sabotage=big), precision="fp16")

    assert isinstance(result, engine.Result)
    assert 2 <= result.skipped <= 16
    assert log.epochs[-1].scale < 65536
    assert log.epochs[-1].metrics["error"] < log.epochs[0].metrics["error"]


def test_what_only_fp16_cannot_represent_is_told_from_bad_mathematics():
    # 1e5 is beyond fp16 and well within fp32.
    task = ToyTask()
    with torch.no_grad():
        task.head.weight.mul_(1e6)

    verdict, _ = train(task, precision="fp16")

    assert isinstance(verdict, Divergence)
    assert verdict.reason == "precision_range"
    assert "finite in fp32" in verdict.detail


def test_a_metric_that_is_not_finite_is_a_verdict_of_its_own():
    task = ToyTask()
    task.validate = lambda: {"error": math.nan}

    verdict, _ = train(task)

    assert verdict.reason == "metric_nonfinite"


def test_steps_that_keep_failing_one_at_a_time_are_a_stall():
    # Every fourth step alone: no run is ever long enough for a probe.
    def sabotage(step, terms, outputs):
        return {**terms, "zeta": Term(nan_by_sqrt(outputs))} if step % 4 == 0 else terms

    verdict, _ = train(ToyTask(sabotage=sabotage), epochs=20)

    assert verdict.reason == "stalled"


def test_a_search_of_the_scale_that_takes_long_at_the_start_is_no_stall():
    # 12 withheld of the first 104: the scaler came down from 65,536 to 16.
    reading = guard.Reading(run=0, longest=0, withheld=12, taken=92, early=12)
    later = guard.Reading(run=0, longest=0, withheld=12, taken=200, early=12)
    stalled = guard.Reading(run=1, longest=1, withheld=32, taken=168, early=12)

    assert [r.is_stalled for r in (reading, later, stalled)] == [False, False, True]


def test_a_probe_leaves_weights_gradients_buffers_and_random_state_alone():
    task = ToyTask(sabotage=from_step(0, nan_by_sqrt))
    task.modules["norm"] = torch.nn.BatchNorm1d(2)
    forward = task.forward
    task.forward = lambda batch: task.modules["norm"](forward(batch))
    batch, rng = task.batch(0), guard.random_state(CPU)
    before = (weights(task), torch.get_rng_state(), task.modules["norm"].running_mean.clone())

    finding = guard.probe(task, batch, device=CPU, precision="fp16", rng=rng)

    after = (weights(task), torch.get_rng_state(), task.modules["norm"].running_mean)
    assert finding.reason == "grad_nonfinite"
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for g in task.groups for p in g.parameters)


def test_the_counters_are_read_once_in_8_steps():
    reads = []

    class Counted(guard.Counters):
        def read(self):
            reads.append(1)
            return super().read()

    original, guard.Counters = guard.Counters, Counted
    try:
        train(ToyTask(), epochs=8)
    finally:
        guard.Counters = original

    # 80 steps: every 8th, and once more at the end of those of the 8 epochs that fall between.
    assert len(reads) <= 80 / 8 + 8
