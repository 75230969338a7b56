"""Planted situations in the data, the weights, or the limits of half precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from objectives import Term
from situations.expected import Outcome, lives
from situations.task import Dense, Outputs, Planted, situation

_POISONED = Outcome(
    reason="loss_nonfinite", kind="NaN", direction="batch", handed_in="x", bad=(1, 16)
)


@situation(_POISONED)
class PoisonedData(Planted):
    """NaN inputs from one batch on."""

    def spoil(self, batch: dict[str, Any]) -> None:
        batch["x"][3, 1] = torch.nan


@situation(replace(_POISONED, kind="infinite", term="fit", handed_in="y"))
class InfiniteLabel(Planted):
    """An infinite label from one batch on."""

    def spoil(self, batch: dict[str, Any]) -> None:
        batch["y"][3, 1] = torch.inf


# torch raises on the CPU and may return NaN elsewhere; the verdict is the same.
@situation(replace(_POISONED, kind=None))
class EighOfNan(PoisonedData):
    """A decomposition of NaN, which raises."""

    size = 16

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        if not outputs["y"].isfinite().all():
            self.observed.add(self.step)
        complex_B1 = torch.view_as_complex(outputs["y"])[:, None]
        spread_BB = torch.diag(torch.arange(1.0, self.size + 1, device=self.device))
        padded_B1 = torch.nn.functional.pad(complex_B1, (0, 0, 0, self.size - 16))
        vectors_BB = torch.linalg.eigh(padded_B1 @ padded_B1.mH + spread_BB)[1]
        return Term(vectors_BB[:, -1].abs().square().mean())


# Beyond 25 rows LAPACK uses another algorithm, which returns NaN; torch's backward raises.
@situation(replace(_POISONED, kind=None))
class LargeEighOfNan(EighOfNan):
    """A decomposition of NaN, whose backward raises."""

    size = 64


# 1e6 is beyond fp16's 65,504 at any loss scale; fp32 and bf16 hold it.
@situation(
    lives(),
    fp16=Outcome(
        reason="precision_range",
        term="fit",
        direction="forward",
        operation="linear",
        module="head",
        bad=(1, 16),
    ),
)
class HalfForward(Planted):
    """Activations beyond fp16."""

    def prepare(self) -> None:
        with torch.no_grad():
            self.parameter("head.weight").mul_(1e7)


# It would train at a scale of 2⁻²⁴, but there the small gradients vanish.
@situation(lives(), fp16=Outcome(reason="precision_range", direction="backward", bad=(1, 16)))
class HalfGradient(Planted):
    """A gradient of 1e13, beyond fp16."""

    def factor(self, step: int) -> float:
        return 1e13


# 1 + 2⁻⁹ is 1 in bf16 (8 bits) and itself in fp16 (11 bits). The term's gradient, 2¹⁸ · 1e-4 = 26,
# makes fp16's scaler back off a few times.
@situation(
    lives(),
    bf16=Outcome(
        reason="precision_range",
        term="plant",
        kind="infinite",
        direction="forward",
        operation="reciprocal",
        bad=(1, 16),
    ),
    fp16=lives(3, 8),
)
class Rounding(Planted):
    """1 / (a − b), with a and b equal in bf16."""

    def networks(self) -> dict[str, nn.Module]:
        return {**super().networks(), "pair": Dense(1, 2, self.words)}

    def prepare(self) -> None:
        with torch.no_grad():
            self.parameter("pair.weight").copy_(torch.tensor([[1 + 2**-9], [1.0]]))
        # A learning rate of 0 keeps these weights unchanged.
        self.groups = [*self.groups[:2], replace(self.groups[2], lr=0.0)]

    def forward(self, batch: Mapping[str, Any]) -> Outputs:
        one_1 = torch.ones(1, device=self.device)
        return {**super().forward(batch), "pair": self.parts["pair"](one_1)}

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        gap = outputs["pair"][0] - outputs["pair"][1]
        return Term(gap.reciprocal(), 1e-4)


# All gradients are NaN then, but only the weight is at fault.
@situation(
    Outcome(
        reason="loss_nonfinite",
        kind="NaN",
        direction="weights",
        parameter="head.weight",
        handed_in="head.weight",
        bad=(1, 16),
    )
)
class PoisonedWeight(Planted):
    """A weight that is NaN from the start, unseen by validation."""

    def prepare(self) -> None:
        with torch.no_grad():
            self.parameter("head.weight")[1, 3] = torch.nan

    def validate(self) -> Mapping[str, float]:
        return {"error": float(self.parameter("trunk.weight").square().mean())}


# Before the first step the metric is a note; the first steps are judged.
@situation(
    Outcome(
        reason="loss_nonfinite",
        kind="NaN",
        direction="weights",
        parameter="head.weight",
        handed_in="head.weight",
        bad=(1, 16),
    )
)
class PoisonedWeightSeen(Planted):
    """A weight that is NaN from the start, seen by the first validation."""

    prepare = PoisonedWeight.prepare


@situation(
    Outcome(
        reason="loss_nonfinite",
        kind="NaN",
        direction="weights",
        parameter="trunk.buffer",
        handed_in="trunk.buffer",
        bad=(1, 16),
    )
)
class PoisonedBuffer(PoisonedWeight):
    """A buffer that is NaN from the start."""

    def prepare(self) -> None:
        poison = torch.full((1,), torch.nan, device=self.device)
        self.parts["trunk"].register_buffer(self.words("buffer"), poison)

    def forward(self, batch: Mapping[str, Any]) -> Outputs:
        buffer: Tensor = self.parts["trunk"].get_buffer(self.words("buffer"))
        return {"y": super().forward(batch)["y"] + buffer}


@situation(Outcome(reason="metric_nonfinite", kind="NaN", direction="validation"))
class ValidationOnly(Planted):
    """A NaN in validation, training being sound."""

    def validate(self) -> Mapping[str, float]:
        # The validation before training is finite.
        error = torch.tensor(super().validate()["error"])
        return {"error": float(error.log() * (0.0 if self.step < 0 else torch.inf) * 0)}
