"""Several steps that share one step of the optimizer: the sum, the guard, the interruption."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.errors import ObjectiveError, StopRequested
from hpo.guard.evidence import Divergence
from objectives import Group, Task, Term
from tests.support.toys import CPU, Log, ToyTask, weights


def plan(tmp_path=None, **changes) -> Plan:
    settings = {"epochs": 3, "precision": "fp32", "device": CPU, "metric": "error"}
    checkpoint = tmp_path / "trial.pt" if tmp_path is not None else None
    return Plan(**{**settings, "checkpoint": checkpoint, **changes})


class Linear(Task):
    """A linear regression on batches of 24, whole or in parts."""

    def __init__(self, parts: int, *, own=None, clip=math.inf) -> None:
        torch.manual_seed(0)
        self.parts, self.accumulate, self.steps_per_epoch = parts, parts, 8 * parts
        self.net = nn.Linear(4, 2)
        self.modules = {"net": self.net}
        self.groups = [
            Group(name="net", parameters=list(self.net.parameters()), lr=1e-2, clip=clip)
        ]
        self.own = own and own(self.net.parameters())

    def schedule(self, progress):
        return 1.0 - progress

    def optimizer(self):
        return self.own

    def batch(self, step):
        whole, part = divmod(step, self.parts)
        x = torch.randn(24, 4, generator=torch.Generator().manual_seed(whole))
        y = torch.stack([x.sum(1), x[:, 0] - x[:, 1]], dim=1)
        return {"x": x.chunk(self.parts)[part], "y": y.chunk(self.parts)[part]}

    def forward(self, batch):
        return self.net(batch["x"])

    def loss(self, outputs, batch):
        # The weight is so small that no gradient overflows at the scaler's first scale.
        return {"fit": Term((outputs - batch["y"]).square().mean(), 0.02)}

    def validate(self):
        return {"error": float(self.net.weight.square().sum())}


OPTIMIZERS = {
    "AdamW": None,
    "SGD": lambda ps: torch.optim.SGD(ps, lr=1e-2, momentum=0.9),
}


@pytest.mark.parametrize("own", OPTIMIZERS)
@pytest.mark.parametrize("clip", [math.inf, 1e-2])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("parts", [2, 3])
def test_steps_that_share_one_give_the_weights_of_the_whole_batch(parts, precision, clip, own):
    whole, task = (Linear(n, own=OPTIMIZERS[own], clip=clip) for n in (1, parts))
    expected = engine.train(whole, plan(precision=precision), Log())

    result = engine.train(task, plan(precision=precision), Log())

    assert (result.skipped, expected.skipped) == (0, 0)
    # In fp16 each part's gradient is rounded by itself, to 2⁻¹¹ of its size, over 24 steps. Adam
    # divides by the gradient's size, so that a small one's rounding moves a weight as far.
    tolerance = {"fp32": 1e-5, "fp16": 2e-3}[precision]
    torch.testing.assert_close(weights(task), weights(whole), rtol=tolerance, atol=tolerance)


def test_the_average_moves_with_the_optimizers_steps():
    whole, task = Linear(1), Linear(3)
    expected = engine.train(whole, plan(ema_decay=0.9), Log())

    result = engine.train(task, plan(ema_decay=0.9), Log())

    torch.testing.assert_close(
        result.averaged["net"]["weight"], expected.averaged["net"]["weight"], rtol=1e-4, atol=1e-5
    )


class Accumulating(ToyTask):
    """A toy with running means, whose windows end within epochs: 4 is no divisor of 10."""

    accumulate = 4

    def __init__(self, **how) -> None:
        super().__init__(**how)
        self.body.add_module("norm", nn.BatchNorm1d(8))
        self.groups = [
            Group(name=name, parameters=list(module.parameters()), lr=1e-2, clip=1.0)
            for name, module in self.modules.items()
        ]
        self.stepped: list[int] = []

    def monitor(self):
        now = weights(self)
        if not torch.equal(now, getattr(self, "before", now * 0)):
            self.stepped.append(self.step)
        self.before = now
        return {}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stop_after", [1, 10, 14, 29])
def test_an_interruption_within_a_window_changes_nothing(precision, stop_after, tmp_path):
    how = {"precision": precision, "ema_decay": 0.9}
    whole = Accumulating()
    expected = engine.train(whole, plan(**how), Log())
    with pytest.raises(StopRequested):
        engine.train(Accumulating(), plan(tmp_path, **how), Log(stop_after=stop_after))
    resumed = Accumulating(seed=5)

    result = engine.train(resumed, plan(tmp_path, **how), Log())

    assert result.value == expected.value
    assert torch.equal(weights(resumed), weights(whole))
    assert torch.equal(resumed.body.norm.running_mean, whole.body.norm.running_mean)


def test_the_last_window_of_a_trial_ends_with_the_trial():
    task = Accumulating()

    engine.train(task, plan(), Log())

    # 30 steps: seven windows of 4 and one of 2. The first is the initialization, seen once.
    assert task.stepped == [0, 3, 7, 11, 15, 19, 23, 27, 29]


def nan_at(bad):
    def sabotage(step, terms, outputs):
        if not bad(step):
            return terms
        return {**terms, "zeta": Term((outputs * 0.0).square().sum().sqrt())}

    return sabotage


def test_a_step_that_is_not_finite_is_left_out_of_its_windows_mean():
    class Missing(Linear):
        def loss(self, outputs, batch):
            terms = super().loss(outputs, batch)
            return nan_at(lambda step: step == 4)(self.step, terms, outputs)

        def batch(self, step):
            self.step = step
            return super().batch(step)

    task, others = Missing(3), Linear(3)
    trial, plain = engine._Trial(task, plan()), engine._Trial(others, plan())
    for step in range(6):
        trial.train_step(task.batch(step))
    for step in range(3):
        plain.train_step(others.batch(step))
    optimizer = plain._stepper.optimizer
    optimizer.param_groups[0]["lr"].fill_(1e-2 * (1 - 3 / 72))
    optimizer.zero_grad()
    for step in (3, 5):
        batch = others.batch(step)
        (others.loss(others.forward(batch), batch)["fit"].value * 0.02 / 2).backward()
    optimizer.step()

    assert trial.counters.withheld() == 1
    torch.testing.assert_close(weights(task), weights(others), rtol=1e-5, atol=1e-6)


def test_a_window_without_a_finite_step_leaves_weights_and_buffers():
    task = Accumulating(sabotage=nan_at(lambda step: 4 <= step < 8))
    trial = engine._Trial(task, plan())
    for step in range(4):
        trial.train_step(task.batch(step))
    before, mean = weights(task), task.body.norm.running_mean.clone()

    for step in range(4, 8):
        trial.train_step(task.batch(step))

    assert torch.equal(weights(task), before)
    assert torch.equal(task.body.norm.running_mean, mean)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_guard_judges_the_batch_that_is_not_finite(precision):
    task = Accumulating(sabotage=nan_at(lambda step: step >= 12))

    with pytest.raises(Divergence) as raised:
        engine.train(task, plan(precision=precision), Log())

    assert raised.value.reason == "grad_nonfinite"
    saved = raised.value.saved
    batch = ToyTask().batch(saved["reading"][0] - 1)
    assert saved["reading"][0] == 16
    assert torch.equal(saved["batch"]["x"], batch["x"])


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None])
def test_a_wrong_number_of_steps_is_refused(wrong):
    task = ToyTask()
    task.accumulate = wrong

    with pytest.raises(ObjectiveError, match="accumulate is"):
        engine.train(task, plan(), Log())
