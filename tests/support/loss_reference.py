"""The loss terms of `models.ris.network.losses` by their textbook N×N formulas, in float64.

Of the loss as it stands in fp32: what is floored there is floored here, by as much.

Shapes: B scenes, N elements, R rank, K sources, C kept directions, P positions on the ring.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.linalg import eigh_signal
from models.ris.network.losses import (
    covariance_error,
    gaussian_nll,
    peak_contrast,
    subspace_alignment,
)

TERMS = ("norm", "nll", "subspace", "peak")
EPS = torch.finfo(torch.float32).eps
# What every floor of the loss is a multiple of; written again so that a change there is noticed.
FLOOR = 8 * EPS


@dataclass(frozen=True)
class Batch:
    """Scenes as the objective hands them to its loss."""

    factor_BNR: Tensor
    noise_B: Tensor
    label_BNK: Tensor
    label_noise_B: Tensor
    steering_BNK: Tensor
    ring_BNKP: Tensor
    mask_BK: Tensor

    def double(self) -> "Batch":
        wide = {torch.complex64: torch.complex128, torch.float32: torch.float64}
        parts = (getattr(self, field.name) for field in fields(self))
        return Batch(*(part.to(wide.get(part.dtype, part.dtype)) for part in parts))


def loss(term: str, batch: Batch, factor_BNR: Tensor, noise_B: Tensor) -> Tensor:
    """The term as `objectives.ris_covariance` calls it."""
    label = (batch.label_BNK, batch.label_noise_B)
    if term == "norm":
        return covariance_error(factor_BNR, noise_B, *label)
    if term == "nll":
        return gaussian_nll(factor_BNR, noise_B, *label)
    if term == "subspace":
        return subspace_alignment(factor_BNR, batch.label_BNK, batch.mask_BK)
    return peak_contrast(
        factor_BNR,
        noise_B,
        steering_BNK=batch.steering_BNK,
        ring_BNKP=batch.ring_BNKP,
        mask_BK=batch.mask_BK,
    )


def reference(term: str, batch: Batch, factor_BNR: Tensor, noise_B: Tensor) -> Tensor:
    """The same by N×N matrices."""
    label_BNN = plus(batch.label_BNK @ batch.label_BNK.mH, batch.label_noise_B)
    outer_BNN = factor_BNR @ factor_BNR.mH
    if term == "norm":
        return energy(plus(outer_BNN, noise_B) - label_BNN) / energy(label_BNN)
    if term == "subspace":
        return _missed(batch, factor_BNR)
    noise_B = floored(factor_BNR, noise_B)
    if term == "nll":
        R_BNN = plus(outer_BNN, noise_B)
        excess_B = torch.linalg.slogdet(R_BNN)[1] - torch.linalg.slogdet(label_BNN)[1]
        fit_B = trace(torch.linalg.solve(R_BNN, label_BNN))
        return (excess_B + fit_B) / R_BNN.shape[-1] - 1
    # s R⁻¹ in the form whose derivative by s has no difference of large numbers.
    null_BNN = torch.linalg.inv(plus(outer_BNN / noise_B[:, None, None], noise_B.new_ones(())))
    vectors = torch.cat((batch.steering_BNK[..., None], batch.ring_BNKP), -1)
    null_BKP = torch.einsum("bnkp,bnm,bmkp->bkp", vectors.conj(), null_BNN, vectors).real
    null_BKP = null_BKP / vectors.abs().square().sum(1).clamp(min=1e-30)
    ratio_BK = null_BKP[..., 0] / (null_BKP[..., 0] + null_BKP[..., 1:].mean(-1))
    return mean(ratio_BK, batch.mask_BK)


def _missed(batch: Batch, factor_BNR: Tensor) -> Tensor:
    """1 − tr(Sᴴ C⁻¹ S)/K, S = D Aᴴ U with the kept eigenvectors U of the N×N matrix F Fᴴ."""
    scale_B = energy(factor_BNR).sqrt().clamp(min=1e-18).detach()
    unit_BNR = factor_BNR / scale_B[:, None, None]
    kept_B = spectrum(batch)[2]
    scaled_BNK, gram_BKK = span(batch)
    columns = min(factor_BNR.shape[-1], gram_BKK.shape[-1])
    seen_BKC = scaled_BNK.mH @ eigh_signal(unit_BNR @ unit_BNR.mH, kept_B, columns=columns)[1]
    captured_B = trace(seen_BKC.mH @ torch.linalg.solve(gram_BKK, seen_BKC))
    return 1 - captured_B / batch.mask_BK.sum(-1).clamp(min=1)


def spectrum(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """F/‖F‖, its squared singular values and a 0 after them, how many of K are above 0."""
    unit_BNR = batch.factor_BNR / norms(batch)[0].clamp(min=1e-18)[:, None, None]
    value_BR = torch.linalg.svdvals(unit_BNR).square()
    # Equal columns are exactly so in fp32: what is below 1e-12 here is an exact 0.
    value_BR = torch.where(value_BR > 1e-12, value_BR, 0)
    kept_B = torch.minimum(batch.mask_BK.sum(-1), (value_BR > 0).sum(-1))
    return unit_BNR, torch.nn.functional.pad(value_BR, (0, 1)), kept_B


def span(batch: Batch) -> tuple[Tensor, Tensor]:
    """A D of unit columns, and C = D Aᴴ A D + 8 ε I, with 1 in place of an absent source's 0."""
    length_BK = lengths(batch.label_BNK)
    scaled_BNK = batch.label_BNK / torch.where(length_BK > 0, length_BK, 1)[:, None]
    load_BK = torch.where(batch.mask_BK, FLOOR, 1.0).to(scaled_BNK.dtype)
    return scaled_BNK, scaled_BNK.mH @ scaled_BNK + torch.diag_embed(load_BK)


def floored(factor_BNR: Tensor, noise_B: Tensor) -> Tensor:
    return torch.maximum(noise_B, FLOOR * energy(factor_BNR))


def plus(matrix_BNN: Tensor, noise_B: Tensor) -> Tensor:
    eye_NN = torch.eye(matrix_BNN.shape[-1], dtype=matrix_BNN.dtype)
    return matrix_BNN + noise_B[..., None, None] * eye_NN


def norms(batch: Batch) -> tuple[Tensor, Tensor]:
    return energy(batch.factor_BNR).sqrt(), energy(batch.label_BNK).sqrt()


def energy(matrix: Tensor) -> Tensor:
    return (matrix * matrix.conj()).real.sum((-2, -1))


def lengths(columns_BNK: Tensor) -> Tensor:
    return columns_BNK.abs().square().sum(-2).sqrt()


def trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).real.sum(-1)


def mean(part_BK: Tensor, mask_BK: Tensor) -> Tensor:
    return torch.where(mask_BK, part_BK, 0).sum(-1) / mask_BK.sum(-1).clamp(min=1)
