"""The engine: the order of a step, resumption to the bit, validation that disturbs nothing."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.errors import ObjectiveError, StopRequested
from hpo.guard.evidence import Divergence
from hpo.task.random_state import seed_all
from objectives import Term
from tests.support.toys import CPU, Log, ToyTask, weights


def plan(tmp_path=None, **changes) -> Plan:
    settings = {"epochs": 3, "precision": "fp32", "device": CPU, "metric": "error"}
    checkpoint = tmp_path / "trial.pt" if tmp_path is not None else None
    return Plan(**{**settings, "checkpoint": checkpoint, **changes})


def test_training_learns():
    log = Log()

    result = engine.train(ToyTask(lr=3e-2), plan(epochs=10), log)

    assert [epoch.epoch for epoch in log.epochs] == list(range(11))
    assert result.value == log.epochs[-1].metrics["error"] < 0.3 * log.epochs[0].metrics["error"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stop_after", [1, 10, 14, 29])
def test_an_interrupted_training_ends_as_if_it_had_not_been(precision, stop_after, tmp_path):
    whole_log, second_log = Log(), Log()
    whole = ToyTask()
    expected = engine.train(whole, plan(precision=precision), whole_log)
    with pytest.raises(StopRequested):
        engine.train(ToyTask(), plan(tmp_path, precision=precision), Log(stop_after=stop_after))
    torch.manual_seed(999)
    resumed = ToyTask(seed=5)

    result = engine.train(resumed, plan(tmp_path, precision=precision), second_log)

    assert result.value == expected.value
    assert torch.equal(weights(resumed), weights(whole))
    last, whole_last = second_log.epochs[-1], whole_log.epochs[-1]
    assert (last.loss, last.scale, last.terms) == (
        whole_last.loss,
        whole_last.scale,
        whole_last.terms,
    )


def test_a_finished_checkpoint_gives_its_result_without_a_step(tmp_path):
    first = engine.train(ToyTask(), plan(tmp_path), Log())
    task, log = ToyTask(seed=3), Log()

    again = engine.train(task, plan(tmp_path), log)

    assert again.value == first.value
    assert (task.step, log.epochs) == (-1, [])


def test_a_truncated_checkpoint_starts_over(tmp_path):
    expected = engine.train(ToyTask(), plan(tmp_path), Log())
    path = tmp_path / "trial.pt"
    path.write_bytes(path.read_bytes()[:1000])

    result = engine.train(ToyTask(), plan(tmp_path), Log())

    assert result.value == expected.value


def test_a_checkpoint_of_another_trial_is_not_taken(tmp_path):
    engine.train(ToyTask(seed=3), plan(tmp_path, about={"trial": 1}), Log())
    expected = engine.train(ToyTask(), plan(), Log())

    result = engine.train(ToyTask(), plan(tmp_path, about={"trial": 2}), Log())

    assert result.value == expected.value


def test_a_checkpoint_that_cannot_be_written_costs_no_trial(tmp_path):
    # A file where the folder should be: no permission to ignore, also for root.
    (tmp_path / "file").touch()
    expected = engine.train(ToyTask(), plan(), Log())

    result = engine.train(ToyTask(), plan(checkpoint=tmp_path / "file" / "trial.pt"), Log())

    assert result.value == expected.value


def test_a_checkpoint_says_what_it_is_of_and_holds_no_code(tmp_path):
    engine.train(ToyTask(), plan(tmp_path, about={"trial": 7, "params": {"lr": 0.1}}), Log())

    state = torch.load(tmp_path / "trial.pt", weights_only=True)

    assert state["about"] == {"trial": 7, "params": {"lr": 0.1}}
    assert list(tmp_path.iterdir()) == [tmp_path / "trial.pt"]


def test_a_pruned_trial_ends_at_once():
    log = Log(prune_at=2)

    result = engine.train(ToyTask(), plan(epochs=5), log)

    assert result.is_pruned
    assert log.epochs[-1].epoch == 2


def reference_steps(task: ToyTask, steps: int, *, scale: float = 1.0) -> torch.Tensor:
    """The same training written out plainly: unscale, clip each group, step."""
    groups = [{"params": list(g.parameters), "lr": g.lr} for g in task.groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    total = 3 * task.steps_per_epoch
    for step in range(steps):
        for group, own in zip(optimizer.param_groups, task.groups, strict=True):
            group["lr"] = own.lr * task.schedule(step / total)
        batch = task.batch(step)
        terms = task.loss(task.forward(batch), batch)
        loss = sum(term.weight * term.value for term in terms.values())
        optimizer.zero_grad()
        (loss * scale).backward()
        for group in task.groups:
            for parameter in group.parameters:
                parameter.grad /= scale
            torch.nn.utils.clip_grad_norm_(group.parameters, group.clip)
        optimizer.step()
    return weights(task)


def test_a_step_is_the_plain_one_and_clips_what_has_been_unscaled():
    # A clip far below the gradient's norm: clipping the scaled one would give other weights.
    expected = reference_steps(ToyTask(dropout=0.0, clip=1e-3), 30)
    task = ToyTask(dropout=0.0, clip=1e-3)

    engine.train(task, plan(), Log())

    # fp32 rounding over 30 steps of at most 1e-2.
    torch.testing.assert_close(weights(task), expected, rtol=1e-4, atol=1e-5)


def test_in_fp16_the_clip_bounds_the_true_gradient():
    # Adam's first step hides the gradient's size, so look at what reaches the optimizer.
    seen: list[float] = []
    task = ToyTask(dropout=0.0, clip=0.05)
    trial = engine._Trial(task, plan(precision="fp16"))
    step = trial._stepper.optimizer.step

    def spy(*args, **kwargs):
        norms = [torch.stack([p.grad.norm() for p in g.parameters]).norm() for g in task.groups]
        seen.extend(float(norm) for norm in norms)
        return step(*args, **kwargs)

    trial._stepper.optimizer.step = spy
    for number in range(12):
        trial.train_step(task.batch(number))

    finite = [norm for norm in seen if math.isfinite(norm)]
    # clip_grad_norm_ divides by norm + 1e-6.
    assert finite
    assert all(norm <= 0.05 * 1.001 for norm in finite)
    assert max(finite) > 0.04


def test_the_scale_recovers_after_an_overflow():
    def sabotage(step, terms, outputs):
        return {**terms, "big": Term(outputs.square().mean(), 1e5 if step == 0 else 1.0)}

    trial = engine._Trial(ToyTask(sabotage=sabotage), plan(precision="fp16"))
    trial._scaler.set_growth_interval(4)
    scales = []
    for number in range(24):
        trial.train_step(trial.task.batch(number))
        scales.append(trial._scaler.get_scale())

    assert min(scales) < 65536
    assert scales[-1] > min(scales)


def test_the_schedule_waits_for_a_step_that_was_withheld():
    def sabotage(step, terms, outputs):
        if step != 3:
            return terms
        return {**terms, "zeta": Term((outputs * 0.0).square().sum().sqrt())}

    trial = engine._Trial(ToyTask(sabotage=sabotage), plan())
    rates = []
    for number in range(6):
        trial.train_step(trial.task.batch(number))
        rates.append(float(trial._stepper.optimizer.param_groups[0]["lr"]))

    # The fourth step was withheld, so the fifth repeats its rate.
    assert rates[3] == rates[4]
    assert rates[:4] == sorted(rates[:4], reverse=True)
    assert rates[5] < rates[4]


def test_validation_disturbs_neither_random_state_nor_modes():
    class Frozen(ToyTask):
        def __init__(self) -> None:
            super().__init__()
            self.silent = False

        def validate(self):
            assert not self.body.training
            assert not torch.is_autocast_enabled("cpu")
            assert not torch.is_grad_enabled()
            return {"error": 1.0} if self.silent else super().validate()

    trained = []
    for silent in (False, True):
        task = Frozen()
        task.silent = silent
        engine.train(task, plan(precision="bf16"), Log())
        trained.append(weights(task))

    assert torch.equal(*trained)


def test_a_part_that_was_frozen_stays_frozen():
    task = ToyTask()
    trial = engine._Trial(task, plan())
    task.body[2].eval()

    trial.validate(Log())

    assert not task.body[2].training
    assert task.body.training


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_metric_that_is_not_finite_before_the_first_step_is_no_verdict(value):
    class Overflowing(ToyTask):
        def validate(self):
            return {"error": value} if self.step < 0 else super().validate()

    log = Log()
    expected = engine.train(ToyTask(), plan(), Log()).value

    result = engine.train(Overflowing(), plan(), log)

    assert not math.isfinite(log.epochs[0].metrics["error"])
    assert result.value == expected


def test_a_metric_that_is_not_finite_after_a_step_is_one():
    class Overflowing(ToyTask):
        def validate(self):
            return {"error": math.inf} if self.step >= 0 else super().validate()

    with pytest.raises(Divergence) as verdict:
        engine.train(Overflowing(), plan(), Log())

    assert verdict.value.reason == "metric_nonfinite"
    assert "after step 10" in verdict.value.detail


def test_memory_that_runs_out_in_a_backward_is_no_bad_step():
    class Full(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(")

    def sabotage(step, terms, outputs):
        # A loss that is not finite excuses other errors of its backward.
        return {"full": Term(Full.apply(outputs).sum() * math.nan)}

    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        engine.train(ToyTask(sabotage=sabotage), plan(), Log())


def test_a_missing_metric_is_the_objectives_error():
    task = ToyTask()
    task.validate = lambda: {"loss": 1.0}

    with pytest.raises(ObjectiveError, match="without the metric 'error'"):
        engine.train(task, plan(), Log())


def test_an_epochs_line_says_what_an_operator_looks_for():
    log = Log()
    engine.train(ToyTask(), plan(epochs=1, precision="fp16"), log)

    line = log.epochs[-1].line()

    for part in ("epoch 1/1", "loss finite", "grad norm body", "head", "scale", "skipped"):
        assert part in line


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: setattr(t, "groups", []), "groups is empty"),
        (lambda t: setattr(t, "steps_per_epoch", 0), "steps_per_epoch is 0"),
        (
            lambda t: setattr(t, "optimizer", lambda: torch.optim.SGD(copies(t), lr=0.1)),
            "steps other parameters than the groups'",
        ),
        (
            lambda t: setattr(t, "optimizer", lambda: torch.optim.SGD(t.body.parameters(), lr=0.1)),
            "leaves out 'head.weight', 'head.bias'",
        ),
        (lambda t: t.body.append(torch.nn.LazyLinear(8)), "'body.3.weight', 'body.3.bias' has no"),
    ],
)
def test_a_task_that_could_not_train_fails_in_each_trial_and_not_at_the_start_alone(change, told):
    # One configuration may have the fault, and the default one not.
    task = ToyTask()
    change(task)

    with pytest.raises(ObjectiveError, match=told):
        engine.train(task, plan(), Log())


def copies(task: ToyTask) -> list[torch.nn.Parameter]:
    """The parameters of a copy of the task's networks."""
    return [*copy.deepcopy(task.body).parameters(), *copy.deepcopy(task.head).parameters()]


class Thawing(ToyTask):
    """A task whose body learns, and leaves its training mode, from step 12 on."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.body.requires_grad_(False)

    def batch(self, step):
        if step == 12:
            self.body.requires_grad_(True)
            self.body[2].eval()
        return super().batch(step)


def test_what_a_task_trains_is_restored_with_it(tmp_path):
    whole, resumed = Thawing(), Thawing()
    expected = engine.train(whole, plan(), Log())
    with pytest.raises(StopRequested):
        engine.train(Thawing(), plan(tmp_path), Log(stop_after=16))

    result = engine.train(resumed, plan(tmp_path), Log())

    assert result.value == expected.value
    assert torch.equal(weights(resumed), weights(whole))
    assert not resumed.body[2].training
    frozen = ToyTask()
    frozen.body.requires_grad_(False)
    assert engine.train(frozen, plan(), Log()).value != expected.value


class Drawing(ToyTask):
    """A task that augments its batches by the global generators of Python and numpy."""

    def batch(self, step):
        batch = super().batch(step)
        factor = random.gauss(1, 0.1) + float(np.random.normal(0, 0.1))
        return {**batch, "x": batch["x"] * factor}

    def validate(self):
        # Drawing here must not disturb training.
        random.random(), np.random.rand()
        return super().validate()


def test_an_interrupted_trial_draws_on_from_every_generator(tmp_path):
    whole, first, resumed = Drawing(), Drawing(), Drawing()
    seed_all(5)
    expected = engine.train(whole, plan(), Log())
    seed_all(5)
    with pytest.raises(StopRequested):
        engine.train(first, plan(tmp_path), Log(stop_after=13))
    seed_all(77)

    result = engine.train(resumed, plan(tmp_path), Log())

    assert result.value == expected.value
    assert torch.equal(weights(resumed), weights(whole))


def test_a_checkpoint_without_flags_and_other_generators_goes_on(tmp_path):
    expected = engine.train(ToyTask(), plan(), Log())
    with pytest.raises(StopRequested):
        engine.train(ToyTask(), plan(tmp_path), Log(stop_after=14))
    state = torch.load(tmp_path / "trial.pt", weights_only=True)
    del state["flags"], state["rng"]["python"], state["rng"]["numpy"]
    torch.save(state, tmp_path / "trial.pt")

    result = engine.train(ToyTask(), plan(tmp_path), Log())

    assert result.value == expected.value
