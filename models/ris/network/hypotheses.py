"""Joint hypotheses on all sources of a scene, and their exact posterior.

A hypothesis has 1…K sources, each in a cell. Those of one source are all cells of a slot that
explains the scene alone. Those of k sources are drawn from the beliefs of the first k slots of mean
field, and weighted by likelihood and prior over that proposal: the weights carry what mean field
lacks, namely how the sources' positions depend on each other, and how many sources there are.

The likelihood is that of sample covariances of unknown scale. With R_l = I + ρ Σ_k p_k d_k d_kᴴ in
units of the noise and q = Σ_l tr(R_l⁻¹ S_l), the scale with a Jeffreys prior integrates out:

    log p = −T Σ_l log det R_l − L M T log q + const

The shares p have sum 1, and ρ follows from the SNR. It is averaged over nodes of the SNR.

Nothing here is learned; everything is fp32 and complex64, without a gradient.

Shapes: B scenes; L codes; M antennas; Z = 2M parts of a response,
real and then imaginary; Y snapshots (1, or M columns of a factor of S_l), Yᴴ d their products; C cells of a slot; S drawn hypotheses; H hypotheses
of either kind; k sources of a hypothesis; Q nodes of the SNR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from models.ris.estimators.responses import NearResponses, Responses
from models.ris.network.mean_field import Belief

# The SNR that mean field fits errs by 1.6 dB (standard deviation), and is 1 to 3 dB high at low SNR.
_NODES_DB = (-3.0, 0.0, 3.0)
# Logarithms are taken of products of this many pivots: each is below 4e4 at 20 dB with 16 antennas,
# and fp32 holds the product of eight.
_PIVOTS = 8
# Powers of a hypothesis differ by at most this, in dB: a poor estimate must not rule a source out.
_MOST_RATIO_DB = 5.0
# Rounding must leave something of q where a hypothesis explains all.
_LEAST_MISFIT = 1e-6


@dataclass(frozen=True)
class Hypotheses:
    """Hypotheses with the same number k of sources.

    Attributes:
        index_BHk: Cell of each source's slot.
        share_BHk: Shares of the sources in the power, sum 1.
        log_posterior_BH: Logarithm of the posterior over the proposal, up to a constant of the
            scene: equal weights elsewhere, these sum to the posterior.
        noise_BH: Mean noise under the hypothesis, in the label's units.
    """

    index_BHk: Tensor
    share_BHk: Tensor
    log_posterior_BH: Tensor
    noise_BH: Tensor


def lattice(count: int, dimensions: int) -> Tensor:
    """Points of a low-discrepancy sequence in the unit cube, (dimensions, count).

    u_s = frac(1/2 + s α),  α_d = g^(−d−1),  g^(dimensions + 1) = g + 1    ([1])

    References:
        [1] M. Roberts, "The unreasonable effectiveness of quasirandom sequences," 2018.
    """
    g = 2.0
    for _ in range(60):
        g = (1 + g) ** (1 / (dimensions + 1))
    step_D1 = torch.tensor([[g ** -(d + 1.0)] for d in range(dimensions)], dtype=torch.float64)
    points_DS = (0.5 + step_D1 * torch.arange(1, count + 1, dtype=torch.float64)) % 1
    return points_DS.float()


def snr_nodes_db(log_noise_B: Tensor, antennas: int, *, low_db: float, high_db: float) -> Tensor:
    """Nodes of the SNR around that of the fitted noise, nodes_BQ."""
    noise_B = log_noise_B.exp()
    signal_B = (1 / antennas - noise_B).clamp(min=0.02 / antennas)
    snr_db_B1 = (10 * (signal_B / noise_B).log10()).unsqueeze(-1)
    offset_Q = torch.tensor(_NODES_DB, device=noise_B.device)
    return (snr_db_B1 + offset_Q).clamp(low_db, high_db)


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


def alone(
    belief: Belief,
    grid: Responses,
    rows_LBYZ: Tensor,
    nodes_BQ: Tensor,
    *,
    antennas: int,
    snapshots: int,
) -> Hypotheses:
    """Hypotheses of one source: every cell of a slot that explains the scene alone."""
    sets: Sequence[Responses | NearResponses] = (
        (grid,) if belief.near is None else (grid, belief.near)
    )
    parts = [
        _single(
            candidates.parts_LZBC.square().sum(1),
            _products(rows_LBYZ, candidates.parts_LZBC).square().sum(2),
            nodes_BQ,
            snapshots=snapshots,
            antennas=antennas,
        )
        for candidates in sets
    ]
    log_likelihood_BQC, energy_BC = (torch.cat(both, -1) for both in zip(*parts, strict=True))
    averaged_BC, noise_BC = _averaged(log_likelihood_BQC, energy_BC / antennas, nodes_BQ)
    volume_BC, cells = belief.cells.log_volume_BC, grid.response_BLMC.shape[-1]
    index_C = torch.arange(volume_BC.shape[1], device=volume_BC.device)
    return Hypotheses(
        index_BHk=index_C[:, None].expand(len(volume_BC), -1, 1),
        share_BHk=volume_BC.new_ones(()).expand(*volume_BC.shape, 1),
        log_posterior_BH=averaged_BC + volume_BC - log(cells),
        noise_BH=noise_BC,
    )


def together(
    beliefs: Sequence[Belief],
    grid: Responses,
    rows_LBYZ: Tensor,
    nodes_BQ: Tensor,
    *,
    count: int,
    snapshots: int,
) -> Hypotheses:
    """Hypotheses of one source in each of some slots, drawn from their beliefs.

    Args:
        count: Number S of hypotheses.
    """
    points_kS = lattice(count, len(beliefs)).to(nodes_BQ.device)
    index_BSk = torch.stack(
        [_drawn(one.log_share_BC, u_S) for one, u_S in zip(beliefs, points_kS, strict=True)], -1
    )
    chosen = list(zip(beliefs, index_BSk.unbind(-1), strict=True))
    power_BSk = torch.stack([one.power_BC.gather(1, index_BS) for one, index_BS in chosen], -1)
    share_BSk = _shares(power_BSk)
    log_likelihood_BQS, power_BS = _joint(
        [_Source.at(one, grid, rows_LBYZ, index_BS) for one, index_BS in chosen],
        share_BSk,
        nodes_BQ,
        snapshots=snapshots,
    )
    averaged_BS, noise_BS = _averaged(log_likelihood_BQS, power_BS, nodes_BQ)
    cells = grid.response_BLMC.shape[-1]
    log_posterior_BS = averaged_BS - len(beliefs) * log(cells) - log(count)
    for one, index_BS in chosen:
        over_BC = one.cells.log_volume_BC - one.log_share_BC
        log_posterior_BS = log_posterior_BS + over_BC.gather(1, index_BS)
    return Hypotheses(index_BSk, share_BSk, log_posterior_BS, noise_BS)


def _drawn(log_share_BC: Tensor, points_S: Tensor) -> Tensor:
    """Cells at the points of the inverse distribution, index_BS."""
    cumulative_BC = log_share_BC.exp().cumsum(-1)
    cumulative_BC = cumulative_BC / cumulative_BC[:, -1:]
    points_BS = points_S.expand(len(cumulative_BC), -1).contiguous()
    index_BS = torch.searchsorted(cumulative_BC, points_BS)
    return index_BS.clamp_(max=cumulative_BC.shape[1] - 1)


def _shares(power_BSk: Tensor) -> Tensor:
    least_BS1 = power_BSk.amax(-1, keepdim=True) * 10 ** (-_MOST_RATIO_DB / 10)
    power_BSk = torch.maximum(power_BSk, least_BS1)
    return power_BSk / power_BSk.sum(-1, keepdim=True)


class _Source(NamedTuple):
    """What the likelihood asks of one source of each hypothesis.

    Attributes:
        response_LZBS: d by its parts.
        energy_LBS: ‖d‖².
        seen_LBYS: yᴴ d, complex.
    """

    response_LZBS: Tensor
    energy_LBS: Tensor
    seen_LBYS: Tensor

    @classmethod
    def at(
        cls, belief: Belief, grid: Responses, rows_LBYZ: Tensor, index_BS: Tensor
    ) -> _Source:
        """The source in chosen cells of a slot."""
        cells, scenes = grid.response_BLMC.shape[-1], len(index_BS)
        sets = (grid,) if belief.near is None else (grid, belief.near)
        parts = [candidates.parts_LZBC for candidates in sets]
        energy_LBC = torch.cat(
            [part.square().sum(1).expand(-1, scenes, -1) for part in parts], -1
        )
        seen_LBYC = torch.cat([_products(rows_LBYZ, part) for part in parts], -1)
        response_LZBS = _gathered(parts[0], index_BS.clamp(max=cells - 1))
        if len(parts) > 1:
            near_LZBS = _gathered(parts[1], (index_BS - cells).clamp(min=0))
            response_LZBS = torch.where(index_BS < cells, response_LZBS, near_LZBS)
        index_LBYS = index_BS[None, :, None].expand(*seen_LBYC.shape[:3], -1)
        index_LBS = index_BS.expand(len(energy_LBC), -1, -1)
        real_LBYS, imag_LBYS = seen_LBYC.gather(-1, index_LBYS).chunk(2, 2)
        return cls(
            response_LZBS,
            energy_LBC.gather(-1, index_LBS),
            torch.complex(real_LBYS, imag_LBYS),
        )


def _gathered(parts_LZBC: Tensor, index_BS: Tensor) -> Tensor:
    l, z = parts_LZBC.shape[:2]
    parts_LZBC = parts_LZBC.expand(-1, -1, len(index_BS), -1)
    return parts_LZBC.gather(-1, index_BS.expand(l, z, -1, -1))


def _products(rows_LBYZ: Tensor, parts_LZBC: Tensor) -> Tensor:
    """Real matrix products of every scene's rows, (L, B, 2Y, C)."""
    if parts_LZBC.shape[2] > 1:
        return rows_LBYZ @ parts_LZBC.transpose(1, 2)
    flat_LXC = rows_LBYZ.flatten(1, 2) @ parts_LZBC.squeeze(2)
    return flat_LXC.unflatten(1, rows_LBYZ.shape[1:3])


def _single(
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


def _joint(
    sources: Sequence[_Source], share_BSk: Tensor, nodes_BQ: Tensor, *, snapshots: int
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
    parts = det_LBH.split(max(1, _PIVOTS // sources))
    log_det_BH = sum(part.prod(0).log_() for part in parts)
    misfit_BH = (codes - fit_BH).clamp_(min=_LEAST_MISFIT * codes)
    return -snapshots * (log_det_BH + codes * antennas * misfit_BH.log_())


def _averaged(
    log_likelihood_BQH: Tensor, power_BH: Tensor, nodes_BQ: Tensor
) -> tuple[Tensor, Tensor]:
    """Log of the likelihood averaged over the nodes, and the posterior mean of the noise, BH."""
    averaged_BH = log_likelihood_BQH.logsumexp(1) - log(nodes_BQ.shape[1])
    share_BQH = log_likelihood_BQH.softmax(1)
    noise_BQ1 = (10 ** (-nodes_BQ / 10)).unsqueeze(-1)
    return averaged_BH, power_BH * (share_BQH * noise_BQ1).sum(1)
