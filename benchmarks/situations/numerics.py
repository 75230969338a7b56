"""Planted situations in which an operation makes the loss or a gradient non-finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from objectives import Term
from situations.benign import attention
from situations.expected import Outcome, grad_fault, loss_fault
from situations.task import Outputs, Planted, situation


@situation(loss_fault("infinite", operation="exp"))
class ExpOverflow(Planted):
    """exp of a hundred."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term((outputs["y"].abs().sum() + 100).exp())


@situation(loss_fault("infinite", operation="log"))
class LogZero(Planted):
    """−log 0: infinite."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term(-(outputs["y"] * 0).abs().mean().log())


@situation(loss_fault("NaN", operation="log"))
class ZeroLogZero(Planted):
    """0 · log 0: an entropy without any mass."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        share = (outputs["y"] * 0).abs().mean()
        return Term(-(share * share.log()))


# The masked scores are infinite as well but not at fault, because the softmax makes them 0.
@situation(loss_fault("NaN", operation="log"))
class EntropyOfAttention(Planted):
    """0 · log 0 of a masked attention's weights."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        share_BB = attention(outputs["y"])
        return Term(-(share_BB * share_BB.log()).sum(-1).mean())


@situation(loss_fault("infinite", operation="log_"))
class InPlace(Planted):
    """−log 0, written into the tensor that it is taken of."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term(-(outputs["y"] * 0).abs().log_().mean())


@situation(loss_fault("infinite", operation="half"))
class OwnHalf(Planted):
    """A cast to fp16 in the loss itself, of more than fp16 holds."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term((outputs["y"].square().mean() + 1e5).half().float())


@situation(grad_fault("sqrt"))
class SqrtZero(Planted):
    """The root of a distance of zero: 1/0 · 0 backward."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term((outputs["y"] - outputs["y"].detach()).square().sum().sqrt())


@situation(grad_fault("sqrt"))
class SqrtFromTheStart(SqrtZero):
    """The same from the first step, while the scaler searches for a large loss."""

    bad = range(10**9)

    def factor(self, step: int) -> float:
        return 1e2


@situation(grad_fault("sqrt"))
class SqrtBeforeRead(SqrtZero):
    """The same from three steps before a read on: too few for it, so that the next one decides."""

    steps_per_epoch = 40
    bad = range(13, 10**9)


@situation(grad_fault("sqrt"))
class WhereTrap(Planted):
    """A root of negative numbers in the branch that `where` leaves out."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        y_B2 = outputs["y"]
        return Term(torch.where(y_B2 > 0, y_B2.sqrt(), 0.0).mean())


@situation(grad_fault("acos"))
class AcosOfOne(Planted):
    """The angle between a vector and itself: −1/0 backward."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        cosine = 1 - (outputs["y"] - outputs["y"].detach()).square().mean()
        return Term(cosine.acos())


class _Poisonous(torch.autograd.Function):
    """The identity, with a backward of NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


@situation(grad_fault("_Poisonous"))
class OwnFunction(Planted):
    """An autograd function of the task's own, with a NaN in its backward."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        y_B2: Tensor = _Poisonous.apply(outputs["y"])  # type: ignore[no-untyped-call]
        return Term(y_B2.mean())


# Ten elements are absent, so ten eigenvalues of R are bit for bit 0.1 on any device.
@situation(grad_fault("linalg_eigh"))
class EighTies(Planted):
    """Eigenvectors of F Fᵀ + 0.1 I, whose least eigenvalues are equal: 0/0 backward."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        is_there_B1 = torch.arange(16, device=self.device)[:, None] < 6
        factor_B2 = outputs["y"] * is_there_B1
        covariance_BB = factor_B2 @ factor_B2.mT + 0.1 * torch.eye(16, device=self.device)
        vectors_BB = torch.linalg.eigh(covariance_BB)[1]
        return Term(1 - (batch["y"].mT @ vectors_BB[:, -2:]).square().mean())


@situation(grad_fault("sqrt", parameters=("head.bias",)))
class OneParameter(Planted):
    """A root of zero of one parameter alone."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        bias_2 = self.parameter("head.bias")
        return Term((bias_2 - bias_2.detach()).square().sum().sqrt())


@situation(grad_fault("sqrt"))
class OneTermOfSix(SqrtZero):
    """A root of zero in one term of six."""

    def more_terms(self, outputs: Outputs, batch: Mapping[str, Any]) -> Mapping[str, Term]:
        return {f"more{i}": self.sound(outputs) for i in range(3)}


@situation(grad_fault("sqrt", parameters=("trunk.bias", "head.weight", "head.bias")))
class FrozenAndSqrtZero(SqrtZero):
    """A root of zero, with a frozen parameter in a group."""

    def prepare(self) -> None:
        self.parameter("trunk.weight").requires_grad_(False)


@situation(grad_fault("sqrt"))
class OwnOptimizerAndSqrtZero(SqrtZero):
    """A root of zero under an optimizer of the task's own."""

    def optimizer(self) -> torch.optim.Optimizer:
        return self.sgd(lr=1e-2, momentum=0.9)


# The term has no value when it raises, so none can be named.
@situation(replace(loss_fault("", operation="linalg_cholesky"), term=None, kind=None))
class CholeskyRefuses(Planted):
    """A Cholesky factor of a finite matrix that is not positive definite, which raises."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        self.observed.add(self.step)
        gram_22 = outputs["y"].mT @ outputs["y"]
        return Term(torch.linalg.cholesky(-gram_22).diagonal().sum())


@situation(loss_fault("NaN", operation="mean", term="fit"))
class EmptyBatch(Planted):
    """Batches of no rows: the mean of nothing is NaN, and every gradient is zero."""

    bad = range(10**9)

    def spoil(self, batch: dict[str, Any]) -> None:
        batch["x"], batch["y"] = batch["x"][:0], batch["y"][:0]


# A probe that drew another number would keep every row and find nothing.
@situation(loss_fault("NaN", operation="mean"))
class RandomMask(Planted):
    """A mean over what a random mask leaves, nothing for the number that the step drew."""

    def spoil(self, batch: dict[str, Any]) -> None:
        self._drawn: float | None = None

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        drawn = float(torch.rand((), device=self.device))
        self._drawn = drawn if self._drawn is None else self._drawn
        is_kept_B = torch.full((16,), drawn != self._drawn, device=self.device)
        return Term(outputs["y"][is_kept_B].mean())


# Neither term is at fault alone, and every gradient is finite.
@situation(
    Outcome(reason="loss_nonfinite", kind="infinite", direction="forward", bad=(1, 16)),
)
class SumOverflow(Planted):
    """Two finite terms whose sum is infinite."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term(outputs["y"].mean() + 2e38)

    def more_terms(self, outputs: Outputs, batch: Mapping[str, Any]) -> Mapping[str, Term]:
        return {"more": self.plant(outputs, batch)} if batch["step"] in self.bad else {}


@situation(loss_fault("infinite"))
class WeightOverflow(Planted):
    """A finite term whose weight makes it infinite."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term(outputs["y"].square().mean() * 1e30, 1e12)


# The squared gradient is 1e40, beyond fp32: it has neither a norm for clipping nor a second moment.
@situation(grad_fault(None, kind="infinite", parameters=("head.bias",)))
class NormOverflow(Planted):
    """A finite gradient whose norm overflows."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term((self.parameter("head.bias") * 1e20).sum())


@situation(loss_fault("NaN"))
class ZeroTimesInfinite(Planted):
    """An infinite term of weight 0."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        return Term((outputs["y"].sum() * 0).log(), 0.0)
