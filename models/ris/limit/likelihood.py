"""Likelihood of sources, as a base station sees them, given snapshots of unknown scale.

The snapshots are y_lt ~ CN(0, g R_l), R_l = Φ_l A P Aᴴ Φ_lᴴ + σ² I. The scale g is unknown, as it
is for every estimator that gets scaled sample covariances.

Shapes: P hypotheses (last, so that all elementwise work runs along them), K sources, N elements, L
codes, M antennas, T snapshots a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sight:
    """One source of each hypothesis as the base station sees it, at power 1.

    Attributes:
        steering_NP: a.
        seen_LMP: d_l = Φ_l a.
        matched_LTP: y_ltᴴ d_l.
        norm_LP: |d_l|².
    """

    steering_NP: Tensor
    seen_LMP: Tensor
    matched_LTP: Tensor
    norm_LP: Tensor

    def select(self, index_P: Tensor) -> Sight:
        """Return the sights of some hypotheses."""
        return Sight(*(part[..., index_P] for part in self._parts()))

    def updated(self, other: Sight, taken_P: Tensor) -> Sight:
        """Return the sights with those of another set in the marked places."""
        pairs = zip(other._parts(), self._parts(), strict=True)
        return Sight(*(torch.where(taken_P, new, old) for new, old in pairs))

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.steering_NP, self.seen_LMP, self.matched_LTP, self.norm_LP


def log_likelihood(strength_KP: Tensor, sights_K: Sequence[Sight]) -> Tensor:
    """Log-likelihood with the scale g integrated over dg/g, up to a constant.

    −T Σ_l log det C_l − n log(1 − Σ_l tr Y_lᴴ V_l C_l⁻¹ V_lᴴ Y_l),   C = I + VᴴV

    with V_l = Φ_l A √P / σ and n = L·M·T. It is ∫ ∏ CN(y; 0, g R) dg/g, whose logarithm is
    −T Σ_l log det R_l − n log Σ_l tr(R_l⁻¹ Y_l Y_lᴴ), with K×K matrices: by the determinant lemma
    log det R_l = M log σ² + log det C_l, by Woodbury R_l⁻¹ = (I − V_l C_l⁻¹ V_lᴴ)/σ², and the
    powers of σ² cancel. It is also the density of the snapshots' direction alone, whatever the
    prior of g.

    Args:
        strength_KP: Powers over the noise, p_k / σ².
        sights_K: The sources, seen with snapshots scaled to Σ_l tr Y_l Y_lᴴ = 1.

    Returns:
        log_likelihood_P, float32.
    """
    codes, snapshots, _ = sights_K[0].matched_LTP.shape
    antennas = sights_K[0].seen_LMP.shape[1]
    logdet_P, explained_P = _eliminated(strength_KP, sights_K)
    left_P = (1 - explained_P).clamp_min(torch.finfo(torch.float32).eps)
    return -snapshots * logdet_P - codes * antennas * snapshots * left_P.log()


def _eliminated(strength_KP: Tensor, sights_K: Sequence[Sight]) -> tuple[Tensor, Tensor]:
    """Σ_l log det C_l and Σ_l tr Y_lᴴ V_l C_l⁻¹ V_lᴴ Y_l, by C̄ = Λ D Λᴴ, source by source."""
    root_KP = strength_KP.sqrt()
    rows_KK: list[list[Tensor]] = []  # Λ below its diagonal of ones, each of shape LP
    pivots_K: list[Tensor] = []  # D, of shape LP
    residues_K: list[Tensor] = []  # Λ⁻¹ times the matched snapshots, of shape LTP
    logdet_P, explained_P = torch.zeros_like(root_KP[0]), torch.zeros_like(root_KP[0])
    for k, sight in enumerate(sights_K):
        row: list[Tensor] = []
        pivot_LP = 1 + strength_KP[k] * sight.norm_LP
        residue_LTP = sight.matched_LTP * root_KP[k]
        for j, other in enumerate(sights_K[:k]):
            inner_LP = (other.seen_LMP.conj() * sight.seen_LMP).sum(1)
            left_LP = inner_LP * (root_KP[j] * root_KP[k])
            for i in range(j):
                left_LP = left_LP - row[i] * rows_KK[j][i].conj() * pivots_K[i]
            row.append(left_LP / pivots_K[j])
            pivot_LP = pivot_LP - square(row[j]) * pivots_K[j]
            residue_LTP = residue_LTP - row[j].unsqueeze(1) * residues_K[j]
        rows_KK.append(row)
        pivots_K.append(pivot_LP)
        residues_K.append(residue_LTP)
        logdet_P = logdet_P + pivot_LP.log().sum(0)
        explained_P = explained_P + (square(residue_LTP).sum(1) / pivot_LP).sum(0)
    return logdet_P, explained_P


def square(value: Tensor) -> Tensor:
    """|z|², without the square root that `abs` takes."""
    return value.real.square() + value.imag.square()
