"""Reports on steps: means, missing gradients and the reason for them."""

from __future__ import annotations

import math
import re

import pytest
import torch

from hpo.engine import trial
from hpo.engine.plan import Plan
from hpo.engine.reports import Interval
from hpo.errors import StopRequested
from tests.support.toys import CPU, Log, ToyTask


class TrialReporter(Log):
    """A reporter that remembers intervals, too."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.intervals: list[Interval] = []

    def on_interval(self, interval: Interval) -> None:
        self.intervals.append(interval)


class Cached(ToyTask):
    """Its body trains at every `every`-th step only, which it announces or keeps to itself."""

    def __init__(self, *, every: int, announces: bool = True) -> None:
        super().__init__(dropout=0.0)
        self.every, self.announces = every, announces

    def forward(self, batch):
        hidden = self.body(batch["x"])
        is_kept = self.every == 0 or self.step % self.every
        return self.head(hidden.detach() if is_kept else hidden)

    def idle(self, step):
        is_kept = self.announces and self.every and step % self.every
        return ("body",) if is_kept else ()

    def monitor(self):
        return {"step_number": torch.tensor(float(self.step))}


def plan(**changes) -> Plan:
    return Plan(**{"epochs": 6, "precision": "fp32", "device": CPU, "metric": "error", **changes})


def train(task: ToyTask, **changes) -> TrialReporter:
    log = TrialReporter()
    trial.train(task, plan(**changes), log)
    return log


def test_an_interval_tells_means_over_its_steps_across_the_ends_of_epochs():
    log = train(Cached(every=1))

    assert [(one.step, one.steps) for one in log.intervals] == [(20, 20), (40, 20), (60, 20)]
    # Steps are numbered from 0: the first 20 have the mean 9.5.
    assert [one.figures["step_number"] for one in log.intervals] == [9.5, 29.5, 49.5]
    assert [epoch.figures["step_number"] for epoch in log.epochs[1:3]] == [4.5, 14.5]
    assert log.epochs[1].flat()["monitor.step_number"] == 4.5
    two_epochs = sum(epoch.loss for epoch in log.epochs[1:3]) / 2
    assert log.intervals[0].loss == pytest.approx(two_epochs, rel=1e-5)


def test_a_line_shows_loss_gradients_and_figures():
    line = train(Cached(every=10)).intervals[0].line()

    assert "step 20 | loss finite" in line
    assert re.search(r"body \d\S* in 2 and 0 by construction in 18, head", line)
    assert "step_number 9.5" in line


def test_a_gradient_that_is_zero_by_construction_is_reported_so_and_warns_nobody():
    log = train(Cached(every=60))

    assert [one.unmoved for one in log.intervals] == [(), (), ()]
    assert "body 0 by construction" in log.intervals[1].line()


def test_a_gradient_that_is_zero_for_20_steps_is_warned_of_once():
    log = train(Cached(every=0))

    assert [one.unmoved for one in log.intervals] == [("body",), (), ()]
    assert log.intervals[0].grad_norms["body"] == 0.0
    assert "body 0," in log.intervals[0].line()


def test_a_row_of_zeros_between_two_lines_is_warned_of():
    class Resting(Cached):
        def forward(self, batch):
            hidden = self.body(batch["x"])
            return self.head(hidden.detach() if 2 <= self.step < 38 else hidden)

    log = train(Resting(every=1))

    assert [one.unmoved for one in log.intervals] == [(), ("body",), ()]


def test_a_figure_of_some_steps_is_their_mean():
    class Seldom(ToyTask):
        def monitor(self):
            return {"reward": torch.tensor(2.0)} if self.step % 2 else {}

    assert [one.figures["reward"] for one in train(Seldom()).intervals] == [2.0, 2.0, 2.0]


def test_a_gradient_that_is_missing_now_and_then_warns_nobody():
    log = train(Cached(every=19, announces=False))

    assert [one.unmoved for one in log.intervals] == [(), (), ()]


def test_a_step_that_is_not_finite_leaves_the_means_of_the_others():
    def sabotage(step, terms, outputs):
        if step == 3:
            terms["fit"] = terms["fit"]._replace(value=terms["fit"].value * math.inf)
        return terms

    log = train(ToyTask(sabotage=sabotage))

    assert math.isfinite(log.intervals[0].grad_norms["head"])
    assert (log.intervals[0].moved["head"], log.intervals[0].zero["head"]) == (19, 0)
    assert "NOT FINITE" in log.intervals[0].line()
    assert " in 19 and not finite in 1" in log.intervals[0].line()
    assert "finite" in log.intervals[1].line()


@pytest.mark.parametrize("stop_after", [7, 25])
def test_what_is_told_survives_an_interruption(stop_after, tmp_path):
    whole = train(Cached(every=3))
    first, second = TrialReporter(stop_after=stop_after), TrialReporter()
    where = {"checkpoint": tmp_path / "trial.pt"}

    with pytest.raises(StopRequested):
        trial.train(Cached(every=3), plan(**where), first)
    trial.train(Cached(every=3), plan(**where), second)

    assert [*first.intervals, *second.intervals] == whole.intervals
    assert second.epochs[-1].flat() == whole.epochs[-1].flat()
