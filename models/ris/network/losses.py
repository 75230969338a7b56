"""Losses of a predicted covariance against its label, in fp32 and in small Gram form.

With R = F Fᴴ + s I and the label R_t = A Aᴴ + t I every term is a function of the small matrices
Fᴴ F, Fᴴ A and Aᴴ A; nothing here decomposes an N×N matrix. Autograd through an N×N eigh of R
divides by λi − λj, 0/0 between the N − rank equal noise eigenvalues: its gradient is NaN always.

Everything is computed in the dtype given, complex64 or complex128; the caller casts half precision
up. A non-finite factor gives a non-finite loss, never an exception: the guard judges it.

Shapes: B scenes; N elements; R rank of the factor F; K sources at most (an absent one is a zero
column of A and False in the mask); P positions on the ring around a source.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.linalg.gram import (
    cholesky_logdet,
    column_energy,
    dominant_whitener,
    ridge_cholesky,
    span_whitener,
    trace,
)
from models.ris.network.ring import ring_steering

__all__ = [
    "Solved",
    "covariance_error",
    "gaussian_nll",
    "peak_contrast",
    "ring_steering",
    "subspace_alignment",
]


class Solved(NamedTuple):
    """What several losses of one prediction share; each computes its own unless given."""

    gram_BRR: Tensor
    floor_B: Tensor
    chol_BRR: Tensor
    residual_BK: Tensor

    @classmethod
    def of(cls, factor_BNR: Tensor, noise_B: Tensor, label_BNK: Tensor) -> "Solved":
        """FᴴF; the floored noise and the factor of `ridge_cholesky`; s aᴴ R⁻¹ a of the columns."""
        gram_BRR = factor_BNR.mH @ factor_BNR
        floor_B, chol_BRR = ridge_cholesky(gram_BRR, noise_B)
        residual_BK = _residual(factor_BNR, floor_B, chol_BRR, label_BNK)
        return cls(gram_BRR, floor_B, chol_BRR, residual_BK)


def covariance_error(
    factor_BNR: Tensor,
    noise_B: Tensor,
    label_BNK: Tensor,
    label_noise_B: Tensor,
    *,
    gram_BRR: Tensor | None = None,
) -> Tensor:
    """Squared Frobenius error of the covariance, normalised by the label's.

    ‖R − R_t‖² / ‖R_t‖²,  with
    ‖R − R_t‖² = ‖G‖² + ‖Aᴴ A‖² − 2 ‖Fᴴ A‖² + 2 (s−t) (tr G − tr Aᴴ A) + N (s−t)²

    Args:
        factor_BNR: F, complex, in √power of the label's units.
        noise_B: s > 0, real, in the label's units of power.
        label_BNK: A, complex, zero columns for absent sources.
        label_noise_B: t > 0, real.

    Returns:
        error_B, real, >= 0 up to rounding (a few ε); 0 at R = R_t, and 1 at R = 0.
    """
    n = factor_BNR.shape[-2]
    gram_BRR = factor_BNR.mH @ factor_BNR if gram_BRR is None else gram_BRR
    label_gram_BKK = label_BNK.mH @ label_BNK
    excess_B = noise_B - label_noise_B
    error_B = (
        _energy(gram_BRR)
        + _energy(label_gram_BKK)
        - 2 * _energy(factor_BNR.mH @ label_BNK)
        + 2 * excess_B * (trace(gram_BRR) - trace(label_gram_BKK))
        + n * excess_B.square()
    )
    label_B = (
        _energy(label_gram_BKK)
        + 2 * label_noise_B * trace(label_gram_BKK)
        + n * label_noise_B.square()
    )
    return error_B / label_B


def gaussian_nll(
    factor_BNR: Tensor,
    noise_B: Tensor,
    label_BNK: Tensor,
    label_noise_B: Tensor,
    *,
    solved: Solved | None = None,
) -> Tensor:
    """Gaussian negative log-likelihood of the label, per element, minus its least value.

    [logdet R + tr(R⁻¹ R_t) − logdet R_t − N] / N, the Kullback-Leibler divergence of CN(0, R_t)
    from CN(0, R) per element: 0 at R = R_t, positive elsewhere. By Woodbury, with M = s I + G and
    X = M⁻¹ Fᴴ A:

    logdet R = (N−R) log s + logdet M;  t tr R⁻¹ = t [(N−R)/s + tr M⁻¹]
    tr(R⁻¹ A Aᴴ) = (‖A − F X‖² + s ‖X‖²) / s    (ridge regression: no difference of large numbers)

    It is bounded below because t > 0: without t a label of rank K < N drives it to −∞ with s.
    The noise s is floored at 8 ε tr G: see `ridge_cholesky`.

    Args:
        factor_BNR: F, complex, in √power of the label's units.
        noise_B: s > 0, real, in the label's units of power.
        label_BNK: A, complex, zero columns for absent sources.
        label_noise_B: t > 0, real.

    Returns:
        excess_B, real, in nats per element; >= 0 up to rounding.
    """
    n, r = factor_BNR.shape[-2:]
    k = label_BNK.shape[-1]
    _, floor_B, chol_BRR, residual_BK = solved or Solved.of(factor_BNR, noise_B, label_BNK)
    label_floor_B, label_chol_BKK = ridge_cholesky(label_BNK.mH @ label_BNK, label_noise_B)
    eye_RR = torch.eye(r, dtype=factor_BNR.dtype, device=factor_BNR.device)
    half_BRR = torch.linalg.solve_triangular(chol_BRR, eye_RR.expand_as(chol_BRR), upper=False)
    fit_B = residual_BK.sum(-1) / floor_B + label_noise_B * ((n - r) / floor_B + _energy(half_BRR))
    logdet_B = (n - r) * floor_B.log() + cholesky_logdet(chol_BRR)
    label_logdet_B = (n - k) * label_floor_B.log() + cholesky_logdet(label_chol_BKK)
    return (logdet_B - label_logdet_B + fit_B) / n - 1


def subspace_alignment(
    factor_BNR: Tensor,
    label_BNK: Tensor,
    mask_BK: Tensor,
    *,
    gram_BRR: Tensor | None = None,
) -> Tensor:
    """Fraction of the sources' span that the dominant K eigenvectors of F Fᴴ miss.

    ε = 1 − ‖Qᴴ U_K‖² / K,  U_K = F W_K Λ_K^(−1/2),  Fᴴ F = W Λ Wᴴ

    Q is an orthonormal basis of the label's span. The gradient is exact and holds only the gap
    between kept and dropped eigenvalues: ties on either side do no harm. A direction that F lacks
    (rank below K, F = 0) counts as missed. Scaling F, or F → F V with V unitary, leaves ε as it is.

    Args:
        factor_BNR: F, complex.
        label_BNK: A, complex; constant for the gradient.
        mask_BK: True where the source is present; K >= 1 is counted from it, scene by scene.

    Returns:
        epsilon_B, real, in [0, 1] up to rounding of about ε λ₁/λ_K.
    """
    count_B = mask_BK.sum(-1)
    # ε does not depend on the scale, so treating it as a constant leaves the gradient exact. 1e-18
    # keeps its square a normal fp32 number, and F = 0 finite.
    # A product with the reciprocal takes a tenth of the time of a complex quotient.
    scale_B = _energy(factor_BNR.detach()).sqrt().clamp(min=1e-18).reciprocal()
    unit_BNR = factor_BNR * scale_B[:, None, None]
    seen_BKR = span_whitener(label_BNK, mask_BK) @ (label_BNK.detach().mH @ unit_BNR)
    if gram_BRR is None:
        unit_BRR = unit_BNR.mH @ unit_BNR
    else:
        unit_BRR = gram_BRR * scale_B.square()[:, None, None]
    captured_B = _energy(seen_BKR @ dominant_whitener(unit_BRR, count_B))
    return 1 - captured_B / count_B.clamp(min=1)


def peak_contrast(
    factor_BNR: Tensor,
    noise_B: Tensor,
    *,
    steering_BNK: Tensor,
    ring_BNKP: Tensor,
    mask_BK: Tensor,
    solved: Solved | None = None,
) -> Tensor:
    """Null spectrum at the true positions, relative to the ring around each.

    (1/K) Σ_k d(a_k) / (d(a_k) + mean_p d(a_kp)),  d(a) = s aᴴ R⁻¹ a / aᴴ a

    d is the reciprocal of the MVDR pseudospectrum, computed as min over x of ‖a − F x‖² + s ‖x‖²:
    in (0, 1], small where a lies in the span of F. A contrast of 0 is a deep null, 1/2 is none.

    Args:
        factor_BNR: F, complex, in √power of the label's units.
        noise_B: s > 0, real, in the label's units of power; floored as in `gaussian_nll`.
        steering_BNK: Steering vectors of the true positions, at any scale (A itself is valid).
        ring_BNKP: Steering vectors of the ring's positions, unit modulus: `ring_steering`.
        mask_BK: True where the source is present.
        solved: Of the same steering vectors at the same scale.

    Returns:
        contrast_B, real, in (0, 1).
    """
    solved = solved or Solved.of(factor_BNR, noise_B, steering_BNK)
    gram_BRR, floor_B, chol_BRR, residual_BK = solved
    energy_BK = column_energy(steering_BNK)
    # An absent source has a zero column: its energy becomes 1 here and its term 0 below.
    energy_BK = torch.where(energy_BK > 0, energy_BK, 1.0)
    peak_BK = residual_BK / energy_BK
    ring_BK = _mean_null(factor_BNR, gram_BRR, floor_B, chol_BRR, ring_BNKP)
    ratio_BK = peak_BK / (peak_BK + ring_BK)
    return torch.where(mask_BK, ratio_BK, 0.0).sum(-1) / mask_BK.sum(-1).clamp(min=1)


def _residual(factor_BNR: Tensor, floor_B: Tensor, chol_BRR: Tensor, vectors_BNK: Tensor) -> Tensor:
    """min over x of ‖v − F x‖² + s ‖x‖² for each column v, that is s vᴴ R⁻¹ v.

    x is a constant for the gradient, which is still exact: the derivative by x is 0 at the minimum.
    For the same reason an error of x, ε κ(s I + G) at worst, counts to second order only.
    """
    with torch.no_grad():
        x_BRK = torch.cholesky_solve(factor_BNR.mH @ vectors_BNK, chol_BRR)
    return column_energy(vectors_BNK - factor_BNR @ x_BRK) + floor_B[:, None] * column_energy(x_BRK)


def _mean_null(
    factor_BNR: Tensor, gram_BRR: Tensor, floor_B: Tensor, chol_BRR: Tensor, ring_BNKP: Tensor
) -> Tensor:
    """Mean over the ring of `_residual` / N, in Gram form at a quarter of the cost.

    (‖a‖² − 2 Re xᴴ Fᴴ a + xᴴ G x + s ‖x‖²) / N cancels to a few ε, and a mean over the ring is
    hardly ever that small. It is still clamped to its exact lower bound s / (s + tr G), outside of
    the gradient: where F is small both are 1, and torch.maximum would halve the gradient.
    """
    cross_BRX = factor_BNR.mH @ ring_BNKP.flatten(-2)
    with torch.no_grad():
        x_BRX = torch.cholesky_solve(cross_BRX, chol_BRR)
        lower_B1 = (floor_B / (floor_B + trace(gram_BRR)))[:, None]
    bent_BRX = gram_BRR @ x_BRX + floor_B[:, None, None] * x_BRX - 2 * cross_BRX
    drop_BX = (x_BRX.real * bent_BRX.real + x_BRX.imag * bent_BRX.imag).sum(-2)
    b, n, k, p = ring_BNKP.shape
    mean_BK = 1 + drop_BX.view(b, k, p).mean(-1) / n
    return mean_BK + (lower_B1 - mean_BK).detach().clamp(min=0)


def _energy(matrix_BNK: Tensor) -> Tensor:
    return column_energy(matrix_BNK).sum(-1)
