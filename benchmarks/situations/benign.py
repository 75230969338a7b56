"""Planted situations without a fault: overflows of the scaler, odd but sound tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpo.engine.reports import Epoch
from objectives import Term
from situations.expected import lives
from situations.task import Dense, Outputs, Planted, situation


@situation(lives())
class Healthy(Planted):
    """Nothing at all."""

    bad = ()


# AdamW is invariant to a factor of the loss. So the following situations train equally well at any
# factor in fp32, and only fp16's loss scale has to follow.
@situation(lives(), fp16=lives(4, 8))
class LargeLoss(Planted):
    """A large loss: the scaler starts too high."""

    bad = ()

    def factor(self, step: int) -> float:
        return 1e2


@situation(lives())
class TinyLoss(Planted):
    """A loss whose gradients fp16 holds only because they are scaled."""

    bad = ()

    def factor(self, step: int) -> float:
        return 1e-6

    def sound(self, outputs: Outputs) -> Term:
        return super().sound(outputs)._replace(weight=0.0)


@situation(lives(), fp16=lives(12, 16))
class HugeLoss(Planted):
    """A loss that the scaler follows down to a scale of a few."""

    bad = ()

    def factor(self, step: int) -> float:
        return 1e4


@situation(lives(), fp16=lives(18, 22))
class ScaleBelowOne(Planted):
    """A loss so large that 20 steps are skipped until it trains at a scale below 1."""

    bad = ()

    def factor(self, step: int) -> float:
        return 1e6


@situation(lives(), fp16=lives(8, 16))
class GrowthOverflow(Planted):
    """A scale that grows every 10 steps, here instead of 2,000, and overflows each time."""

    bad = ()
    steps = 80
    growth_interval = 10

    def factor(self, step: int) -> float:
        return 1e2


@situation(lives(), fp16=lives(6, 16))
class SlowGrowth(Planted):
    """A gradient that doubles every 16 steps and overflows one step at a time."""

    bad = ()
    steps = 160

    def factor(self, step: int) -> float:
        return 10 * 2 ** (step / 16)


@situation(lives())
class MaskedAttention(Planted):
    """Infinite scores before a softmax, as attention masks its future."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term((attention(outputs["y"]) @ outputs["y"]).square().mean())


def attention(y_B2: Tensor) -> Tensor:
    """Causal attention: weights of each row for the rows up to it; 0 for those after it."""
    scores_BB = y_B2 @ y_B2.mT
    future_BB = torch.ones_like(scores_BB, dtype=torch.bool).triu(1)
    return scores_BB.masked_fill(future_BB, -torch.inf).softmax(-1)


@situation(lives())
class HalfLabel(Planted):
    """Labels in fp16."""

    dtype, seen = torch.float16, torch.float32
    bad = range(10**9)

    def spoil(self, batch: dict[str, Any]) -> None:
        batch["y"] = batch["y"].to(self.dtype)

    def label(self, batch: Mapping[str, Any]) -> Tensor:
        # The loss gets the dtype that the contract promises, not the batch's.
        self.found = batch["y"].dtype
        label: Tensor = batch["y"].real if batch["y"].is_complex() else batch["y"]
        return label

    def signs(self, epochs: Sequence[Epoch]) -> bool:
        return self.batch(0)["y"].dtype is self.dtype and self.found is self.seen


@situation(lives())
class ComplexHalfLabel(HalfLabel):
    """Labels in complex32."""

    dtype, seen = torch.complex32, torch.complex64


@situation(lives())
class DoubleLabel(HalfLabel):
    """Labels in float64."""

    dtype = torch.float64


@situation(lives())
class DeadLayer(Planted):
    """A layer whose units never fire: a gradient of zero."""

    bad = ()

    def networks(self) -> dict[str, nn.Module]:
        return {**super().networks(), "dead": Dense(4, 2, self.words)}

    def prepare(self) -> None:
        with torch.no_grad():
            self.parameter("dead.bias").fill_(-100)

    def forward(self, batch: Mapping[str, Any]) -> Outputs:
        y_B2 = super().forward(batch)["y"]
        return {"y": y_B2 + self.parts["dead"](batch["x"]).relu()}

    def signs(self, epochs: Sequence[Epoch]) -> bool:
        gradient = self.parameter("dead.weight").grad
        return gradient is not None and not gradient.any()


@situation(lives())
class UnusedLayer(Planted):
    """A layer that nothing uses: no gradient at all."""

    bad = ()

    def networks(self) -> dict[str, nn.Module]:
        return {"spare": Dense(4, 2, self.words), **super().networks()}

    def signs(self, epochs: Sequence[Epoch]) -> bool:
        return self.parameter("spare.weight").grad is None


# The scaler's search makes the guard read fp16's gradients, one of which does not exist.
@situation(lives(), fp16=lives(4, 8))
class FrozenParameter(LargeLoss):
    """A frozen parameter in a group, and a large loss."""

    def prepare(self) -> None:
        self.parameter("trunk.weight").requires_grad_(False)


@situation(lives(), fp16=lives(4, 8))
class OwnOptimizer(LargeLoss):
    """An optimizer of the task's own, and a large loss."""

    def optimizer(self) -> torch.optim.Optimizer:
        return self.sgd(lr=1e-5)
