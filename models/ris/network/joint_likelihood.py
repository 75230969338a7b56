"""Exact likelihood of joint hypotheses, from the base station's responses to the sources.

The data are sample covariances S_l of unknown scale. Under a hypothesis, in units of the noise,

    R_l = I + ρ Σ_k p_k d_k d_kᴴ        q = Σ_l tr(R_l⁻¹ S_l)

With a Jeffreys prior the scale integrates out:

    log p = −T Σ_l log det R_l − L M T log q + const

The shares p of the sources in the power have sum 1. ρ follows from the SNR:
ρ = SNR · M / mean_l Σ_k p_k ‖d_k‖². Determinant and inverse are those of k×k matrices, by the
matrix determinant lemma. Everything is fp32 and complex64, without a gradient.

Shapes: B scenes; L codes; M antennas; Z = 2M parts of a response, real and then imaginary; Y
columns of a factor of S_l, 1 for one snapshot and M else; C candidates; S hypotheses; k sources of
each; Q SNRs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Logarithms are taken of products of this many pivots. Each is below 4e4 at 20 dB with 16 antennas,
# and fp32 holds the product of eight.
_PIVOTS = 8
# Rounding must leave something of q where a hypothesis explains all.
_LEAST_MISFIT = 1e-6


class Source(NamedTuple):
    """What the likelihood asks of one source of each hypothesis.

    Attributes:
        response_LZBS: d by its parts.
        energy_LBS: ‖d‖².
        seen_LBYS: Yᴴ d, complex, where Y Yᴴ = S.
    """

    response_LZBS: Tensor
    energy_LBS: Tensor
    seen_LBYS: Tensor


def snapshot_rows(sample_BLMM: Tensor, snapshots: int) -> Tensor:
    """Real matrices (L, B, 2Y, Z) that map the parts of d to those of Yᴴ d, where Y Yᴴ = S.

    Y is a column of S, scaled, for one snapshot, else a Cholesky factor.
    """
    if snapshots == 1:
        power_BLM = sample_BLMM.diagonal(dim1=-2, dim2=-1).real
        most_BL1, index_BL1 = power_BLM.max(-1, keepdim=True)
        index_BLM1 = index_BL1.unsqueeze(-2).expand(*power_BLM.shape, 1)
        length_BL11 = most_BL1.clamp(min=torch.finfo(most_BL1.dtype).tiny).sqrt().unsqueeze(-1)
        y_BLMY = sample_BLMM.gather(-1, index_BLM1) / length_BL11
    else:
        m = sample_BLMM.shape[-1]
        eye_MM = torch.eye(m, dtype=sample_BLMM.dtype, device=sample_BLMM.device)
        # The load makes a sample of T < M snapshots definite; it is far below any noise.
        y_BLMY = torch.linalg.cholesky_ex(sample_BLMM + 1e-6 * eye_MM).L
    y_LBYM = y_BLMY.permute(1, 0, 3, 2)
    real, imag = y_LBYM.real, y_LBYM.imag
    return torch.cat((torch.cat((real, imag), -1), torch.cat((-imag, real), -1)), 2)


def seen_parts(rows_LBYZ: Tensor, parts_LZBC: Tensor) -> Tensor:
    """Yᴴ d of candidates by its parts, (L, B, 2Y, C); the candidates' B is 1 if all share them."""
    if parts_LZBC.shape[2] > 1:
        return rows_LBYZ @ parts_LZBC.transpose(1, 2)
    flat_LXC = rows_LBYZ.flatten(1, 2) @ parts_LZBC.squeeze(2)
    return flat_LXC.view(*rows_LBYZ.shape[:3], -1)


def single_log_likelihood(
    energy_LBC: Tensor, match_LBC: Tensor, nodes_BQ: Tensor, *, snapshots: int, antennas: int
) -> tuple[Tensor, Tensor]:
    """Log-likelihood by SNR of one source at each candidate, BQC, and mean_l ‖d‖², BC."""
    mean_BC = energy_LBC.mean(0)
    rho_QBC = (10 ** (nodes_BQ.T / 10)).unsqueeze(-1) * (antennas / mean_BC)
    columns = []
    for rho_BC in rho_QBC:
        det_LBC = torch.addcmul(energy_LBC.new_ones(()), energy_LBC, rho_BC)
        fit_BC = rho_BC * (match_LBC / det_LBC).sum(0)
        columns.append(_scale_free(det_LBC, fit_BC, snapshots, antennas, sources=1))
    return torch.stack(columns, 1), mean_BC.expand(len(nodes_BQ), -1)


def joint_log_likelihood(
    sources: Sequence[Source], share_BSk: Tensor, nodes_BQ: Tensor, *, snapshots: int
) -> tuple[Tensor, Tensor]:
    """Log-likelihood by SNR of joint hypotheses, BQS, and mean_l Σ_k p_k ‖d_k‖² / M, BS."""
    k, antennas = len(sources), sources[0].response_LZBS.shape[1] // 2
    shares, roots = share_BSk.unbind(-1), share_BSk.sqrt().unbind(-1)
    # Scaled by √p, all sources have power 1.
    energy = [one.energy_LBS * p_BS for one, p_BS in zip(sources, shares, strict=True)]
    seen = [one.seen_LBYS * r_BS.unsqueeze(1) for one, r_BS in zip(sources, roots, strict=True)]
    crossed = {
        (i, j): _inner(sources[i].response_LZBS, sources[j].response_LZBS) * (roots[i] * roots[j])
        for i in range(k)
        for j in range(i + 1, k)
    }
    power_BS = sum(energy[1:], energy[0]).mean(0) / antennas
    columns = []
    for rho_BS in (10 ** (nodes_BQ.T / 10)).unsqueeze(-1) / power_BS:
        det_LBS, fit_BS = _eliminated(energy, crossed, seen, rho_BS)
        columns.append(_scale_free(det_LBS, fit_BS, snapshots, antennas, sources=k))
    return torch.stack(columns, 1), power_BS


def _inner(left_LZBS: Tensor, right_LZBS: Tensor) -> Tensor:
    """d_iᴴ d_j, complex, LBS."""
    (a, b), (c, d) = left_LZBS.chunk(2, 1), right_LZBS.chunk(2, 1)
    return torch.complex((left_LZBS * right_LZBS).sum(1), (a * d - b * c).sum(1))


def _eliminated(
    energy: Sequence[Tensor],
    crossed: dict[tuple[int, int], Tensor],
    seen: Sequence[Tensor],
    rho_BS: Tensor,
) -> tuple[Tensor, Tensor]:
    """det(I + ρ G) of each code, LBS, and ρ Σ z (I + ρ G)⁻¹ zᴴ over codes and snapshots, BS.

    G is the Gram matrix and z = yᴴ D. Each number of the small matrices is a tensor over codes,
    scenes and hypotheses; elimination needs no pivots, as the matrix is definite.
    """
    diagonal = [torch.addcmul(one.new_ones(()), one, rho_BS) for one in energy]
    above = {key: rho_BS * value for key, value in crossed.items()}
    right, k = list(seen), len(seen)
    for i in range(k):
        for j in range(i + 1, k):
            factor_LBS = above[i, j] / diagonal[i]
            right[j] = right[j] - factor_LBS.unsqueeze(2) * right[i]
            diagonal[j] = diagonal[j] - _square(above[i, j]) / diagonal[i]
            for m in range(j + 1, k):
                above[j, m] = above[j, m] - factor_LBS.conj() * above[i, m]
    det_LBS, fit_BS = diagonal[0], (_square(right[0]).sum(2) / diagonal[0]).sum(0)
    for pivot_LBS, z_LBYS in zip(diagonal[1:], right[1:], strict=True):
        det_LBS = det_LBS * pivot_LBS
        fit_BS = fit_BS + (_square(z_LBYS).sum(2) / pivot_LBS).sum(0)
    return det_LBS, rho_BS * fit_BS


def _square(value: Tensor) -> Tensor:
    return value.real.square() + value.imag.square()


def _scale_free(
    det_LBH: Tensor, fit_BH: Tensor, snapshots: int, antennas: int, *, sources: int
) -> Tensor:
    """−T Σ log det − L M T log q, with q = Σ_l tr S_l − fit and Σ_l tr S_l = L."""
    codes = len(det_LBH)
    log_det_BH = torch.zeros_like(fit_BH)
    codes_each = max(1, _PIVOTS // sources)
    for first in range(0, codes, codes_each):
        log_det_BH += det_LBH[first : first + codes_each].prod(0).log_()
    misfit_BH = (codes - fit_BH).clamp_(min=_LEAST_MISFIT * codes)
    return -snapshots * (log_det_BH + codes * antennas * misfit_BH.log_())
