"""Planted situations over several steps: spikes that end, faults that recur."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from objectives import Term
from situations.expected import Outcome, lives
from situations.numerics import CholeskyRefuses, SqrtZero
from situations.task import Outputs, Planted, situation

_STALLED = Outcome(reason="stalled", bad=(4, 60), within=150)


class _Spike(Planted):
    """Infinite labels in a few steps."""

    def spoil(self, batch: dict[str, Any]) -> None:
        batch["y"] = batch["y"] + torch.inf


@situation(lives(1, spikes=1))
class OneStep(_Spike):
    """Infinite labels in one step."""

    bad = (12,)


@situation(lives(3, spikes=1))
class ThreeBeforeRead(_Spike):
    """Infinite labels in three steps up to a read."""

    bad = (5, 6, 7)


@situation(lives(3, spikes=1))
class ThreeAcrossRead(_Spike):
    """Infinite labels in three steps, a read between them."""

    bad = (6, 7, 8)


@situation(lives(3, spikes=1))
class ThreeAcrossEpoch(_Spike):
    """Infinite labels in three steps, the end of an epoch between them."""

    bad = (8, 9, 10)


@situation(lives(5, spikes=1))
class FiveBetweenReads(_Spike):
    """Infinite labels in five steps that are over when the read comes."""

    bad = (10, 11, 12, 13, 14)


# A scaler cannot tell a NaN gradient of a finite loss from an overflow, so fp16 counts no spike.
@situation(lives(1, spikes=1), fp16=lives(1, spikes=0))
class OneNanGradient(Planted):
    """A NaN gradient with a finite loss in one step."""

    bad = (12,)

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term((outputs["y"] * 0).square().sum().sqrt())


@situation(lives(1, spikes=1))
class OnePoisonedBatch(Planted):
    """NaN inputs in one batch."""

    bad: Collection[int] = (12,)

    def spoil(self, batch: dict[str, Any]) -> None:
        batch["x"][3, 1] = torch.nan


# 92 % of the steps reach the weights. The loss scale is not at fault in any of the others.
@situation(lives(20, spikes=20))
class RarePoison(OnePoisonedBatch):
    """NaN inputs in one batch of twelve."""

    bad = range(5, 240, 12)
    steps = 240


@situation(_STALLED)
class EverySecond(SqrtZero):
    """A root of zero in every second step."""

    steps = 160
    bad = range(0, 10**9, 2)


@situation(_STALLED)
class EverySecondLoss(EverySecond):
    """An infinite loss with a finite gradient in every second step."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term(outputs["y"].mean() + torch.inf)


@situation(_STALLED)
class EveryFourth(SqrtZero):
    """A root of zero in every fourth step."""

    steps = 160
    bad = range(0, 10**9, 4)


@situation(_STALLED)
class SeenOnce(Planted):
    """An infinite loss that is gone when the same batch is looked at again."""

    steps = 160

    def spoil(self, batch: dict[str, Any]) -> None:
        self._is_fresh = True

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        is_fresh, self._is_fresh = self._is_fresh, False
        return Term(outputs["y"].sum() * 0 + torch.inf) if is_fresh else self.sound(outputs)


# fp16's activations overflow long before fp32's loss; from then on no step is taken, so that the
# weights stay where fp32 is still finite.
@situation(
    Outcome(reason="loss_nonfinite", term="fit", kind="infinite", direction="forward", bad=(1, 16)),
    fp16=Outcome(reason="precision_range", bad=(1, 16)),
)
class TooFast(Planted):
    """A learning rate that blows the weights up."""

    bad = ()

    def prepare(self) -> None:
        self.groups = [replace(group, clip=math.inf) for group in self.groups]

    def optimizer(self) -> torch.optim.Optimizer:
        return self.sgd(lr=1e5)


@situation(lives(1, spikes=1))
class OneRefusal(CholeskyRefuses):
    """A decomposition that raises in one step."""

    bad = (12,)


class _Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise RuntimeError("a bug of the task")


@situation(Outcome(reason="raised RuntimeError"))
class Bug(Planted):
    """A backward that raises with a finite loss: a bug, and no divergence."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        y_B2: Tensor = _Broken.apply(outputs["y"])  # type: ignore[no-untyped-call]
        return Term(y_B2.mean())
