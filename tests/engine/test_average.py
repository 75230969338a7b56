"""Averaged weights: the formula, a swap that leaves no trace, resumption to the bit, a schedule."""

from __future__ import annotations

import copy

import pytest
import torch

from hpo.engine import trial as engine
from hpo.engine.average import Average, module_states
from hpo.engine.plan import Plan
from hpo.errors import StopRequested
from hpo.guard.evidence import Divergence
from hpo.refit.seed_process import schedule
from objectives import Term
from tests.support.toys import CPU, Log, ToyTask, weights


def plan(tmp_path=None, **changes) -> Plan:
    settings = {"epochs": 3, "precision": "fp32", "device": CPU, "metric": "error"}
    checkpoint = tmp_path / "trial.pt" if tmp_path is not None else None
    return Plan(**{**settings, "checkpoint": checkpoint, **changes})


class Watched(ToyTask):
    """A toy that keeps the weights that each of its hooks sees."""

    def __init__(self, **how) -> None:
        super().__init__(**how)
        self.trained: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []
        self.predicted: list[torch.Tensor] = []

    def forward(self, batch):
        if self.body.training:
            self.trained.append(weights(self))
        return super().forward(batch)

    def validate(self):
        self.validated.append(weights(self))
        return super().validate()

    def predict(self, samples):
        self.predicted.append(weights(self))
        return ()


def test_the_average_is_the_formulas_and_what_validation_and_predictions_see():
    task = Watched()

    result = engine.train(
        task, plan(ema_decay=0.9, epochs=2, predictions=1, predictions_every=5), Log()
    )

    average = task.trained[0].double()
    after = [average]
    for step, live in enumerate([*task.trained[1:], weights(task)], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * live.double()
        after.append(average)
    # fp32 rounding over 20 steps.
    close = {"rtol": 1e-5, "atol": 1e-6, "check_dtype": False}
    for seen, step in zip(task.validated, (0, 10, 20), strict=True):
        torch.testing.assert_close(seen, after[step], **close)
    for seen, step in zip(task.predicted, (0, 5, 10, 15, 20), strict=True):
        torch.testing.assert_close(seen, after[step], **close)
    told = torch.cat([v.flatten() for m in result.averaged.values() for v in m.values()])
    torch.testing.assert_close(told, average, **close)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_is_the_same_to_the_bit_with_and_without_an_average(precision):
    with_average = Watched()
    engine.train(with_average, plan(ema_decay=0.99, precision=precision), Log())
    # Made afterwards: it seeds torch's generator, which dropout draws from.
    without = Watched()

    result = engine.train(without, plan(precision=precision), Log())

    assert torch.equal(torch.stack(with_average.trained), torch.stack(without.trained))
    assert torch.equal(weights(with_average), weights(without))
    assert result.averaged is None
    assert not torch.equal(with_average.validated[-1], without.validated[-1])


def test_the_live_weights_come_back_to_the_bit_also_after_a_raise():
    task = ToyTask()
    average = Average(task, 0.9)
    with torch.no_grad():
        # Neither NaN nor a denormal may be touched by the way there and back.
        task.head.weight.view(-1)[:2] = torch.tensor([torch.nan, 1e-42])
    before = copy.deepcopy(task.head.weight)
    seen = []

    def fail() -> None:
        with average.in_place():
            seen.append(weights(task))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert torch.isfinite(seen[0]).all()
    assert torch.equal(before.view(torch.int32), task.head.weight.view(torch.int32))


def test_buffers_are_the_live_ones_and_a_withheld_step_is_not_averaged():
    task = ToyTask()
    task.body.add_module("norm", torch.nn.BatchNorm1d(8))
    average = Average(task, 0.9)
    task.body.norm.running_mean.fill_(3.0)
    with torch.no_grad():
        task.head.bias.fill_(1.0)
    before = module_states(task)["head"]["bias"] * 0 + average.modules()["head"]["bias"]

    average.take(torch.tensor([5]), torch.tensor(1.0))

    assert torch.equal(average.modules()["body"]["norm.running_mean"], torch.full((8,), 3.0))
    assert torch.equal(average.modules()["head"]["bias"], before)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("stop_after", [1, 10, 29])
def test_an_interrupted_training_with_an_average_ends_as_if_it_had_not_been(
    precision, stop_after, tmp_path
):
    how = {"precision": precision, "ema_decay": 0.95, "schedule": schedule}
    whole_log, log = Log(), Log()
    expected = engine.train(ToyTask(), plan(**how), whole_log)
    with pytest.raises(StopRequested):
        engine.train(ToyTask(), plan(tmp_path, **how), Log(stop_after=stop_after))

    result = engine.train(ToyTask(seed=5), plan(tmp_path, **how), log)

    assert result.value == expected.value
    assert log.epochs[-1].metrics == whole_log.epochs[-1].metrics
    for name, module in expected.averaged.items():
        assert all(torch.equal(value, result.averaged[name][key]) for key, value in module.items())


def test_a_checkpoint_without_an_average_is_not_gone_on_from_with_one(tmp_path):
    engine.train(ToyTask(), plan(tmp_path), Log())
    expected = engine.train(ToyTask(), plan(ema_decay=0.9), Log())

    result = engine.train(ToyTask(), plan(tmp_path, ema_decay=0.9), Log())

    assert result.value == expected.value


def test_a_metric_that_is_not_finite_is_judged_with_the_averaged_weights():
    class Broken(Watched):
        def validate(self):
            found = super().validate()
            return {"error": float("nan")} if len(self.validated) == 2 else found

    task = Broken()

    with pytest.raises(Divergence) as raised:
        engine.train(task, plan(ema_decay=0.9), Log())

    assert raised.value.reason == "metric_nonfinite"
    saved = raised.value.saved["modules"]
    kept = torch.cat([value.flatten() for module in saved.values() for value in module.values()])
    assert torch.equal(kept, task.validated[1])
    assert not torch.equal(kept, weights(task))


def test_a_plans_schedule_takes_the_place_of_the_tasks():
    trial = engine._Trial(ToyTask(), plan(schedule=lambda progress: 0.5))

    trial.train_step(trial.task.batch(0))

    assert float(trial._stepper.optimizer.param_groups[0]["lr"]) == pytest.approx(0.5e-2)


def test_the_schedule_of_a_training_warms_up_and_falls_to_nothing():
    steps = 1000
    rates = [schedule(step / steps) for step in range(steps)]

    top = rates.index(max(rates))
    assert top == steps // 50
    assert rates[top] == 1.0
    assert 0 < rates[0] < 0.1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    # The last of 980 steps along half a cosine: (π/980)² / 4 is 2.6e-6.
    assert rates[-1] < 3e-6


def test_a_checkpoint_is_written_within_an_epoch_when_it_is_due(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "_CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(engine, "_CHECKPOINT_SHARE", 0.0)
    expected = engine.train(ToyTask(), plan(), Log())

    def die(step, terms, outputs):
        if step == 14:
            raise KeyboardInterrupt
        return terms

    with pytest.raises(KeyboardInterrupt):
        engine.train(ToyTask(sabotage=die), plan(tmp_path), Log())
    task = ToyTask(sabotage=lambda step, terms, outputs: seen.append(step) or terms)
    seen: list[int] = []

    result = engine.train(task, plan(tmp_path), Log())

    assert seen[0] == 14
    assert result.value == expected.value


def test_what_the_reporter_keeps_comes_back_with_the_checkpoint(tmp_path):
    class Keeping(Log):
        def state_dict(self):
            return {"epochs": [epoch.epoch for epoch in self.epochs]}

        def load_state_dict(self, state):
            self.kept = state["epochs"]

    with pytest.raises(StopRequested):
        engine.train(ToyTask(), plan(tmp_path), Keeping(stop_after=14))
    log = Keeping()

    engine.train(ToyTask(), plan(tmp_path), log)

    assert log.kept == [0, 1]
    assert [epoch.epoch for epoch in log.epochs] == [2, 3]


def test_terms_alone_decide_the_average_of_a_training_whose_steps_are_withheld():
    def sabotage(step, terms, outputs):
        if step < 2:
            return terms
        return {**terms, "zeta": Term((outputs * 0.0).square().sum().sqrt())}

    task = Watched(sabotage=sabotage)
    trial = engine._Trial(task, plan(ema_decay=0.9))
    for number in range(6):
        trial.train_step(task.batch(number))
        if number == 1:
            before = trial.averaged()

    after = trial.averaged()
    assert all(torch.equal(before[m][k], after[m][k]) for m in before for k in before[m])
