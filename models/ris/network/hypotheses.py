"""Joint hypotheses on all sources of a scene, and their exact posterior.

A hypothesis puts 1…K sources into a cell each:

- One source: all cells of a slot that explains the scene alone.
- k sources: cells drawn from the beliefs of the first k slots of mean field, by a lattice.

The posterior of a drawn hypothesis is likelihood times prior over the proposal, as in importance
sampling. It adds what mean field lacks: how the sources' positions depend on each other, and how
many sources there are. The likelihood is averaged over some SNRs around the fitted one.

Border: nothing here is learned; everything is fp32 and complex64, without a gradient. `weighing`
turns posteriors into weights.

Shapes: B scenes; L codes; M antennas; Z = 2M parts of a response; Y columns of a factor of S_l; C
cells of a slot; S drawn hypotheses; H hypotheses of either kind; k sources of each; Q nodes of the
SNR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from models.ris.estimators.responses import NearResponses, Responses
from models.ris.network.joint_likelihood import (
    Source,
    joint_log_likelihood,
    seen_parts,
    single_log_likelihood,
)
from models.ris.network.mean_field import Belief

# The SNR that mean field fits has a standard deviation of 1.6 dB, and is 1 to 3 dB high below 5 dB.
_NODES_DB = (-3.0, 0.0, 3.0)
# Powers of a hypothesis differ by at most this, in dB: a poor estimate must not rule a source out.
_MOST_RATIO_DB = 5.0


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
        single_log_likelihood(
            candidates.parts_LZBC.square().sum(1),
            seen_parts(rows_LBYZ, candidates.parts_LZBC).square().sum(2),
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
    log_likelihood_BQS, power_BS = joint_log_likelihood(
        [_source(one, grid, rows_LBYZ, index_BS) for one, index_BS in chosen],
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


def _source(belief: Belief, grid: Responses, rows_LBYZ: Tensor, index_BS: Tensor) -> Source:
    """A source in chosen cells of a slot."""
    cells, scenes = grid.response_BLMC.shape[-1], len(index_BS)
    sets = (grid,) if belief.near is None else (grid, belief.near)
    parts = [candidates.parts_LZBC for candidates in sets]
    energy_LBC = torch.cat([part.square().sum(1).expand(-1, scenes, -1) for part in parts], -1)
    seen_LBYC = torch.cat([seen_parts(rows_LBYZ, part) for part in parts], -1)
    response_LZBS = _gathered(parts[0], index_BS.clamp(max=cells - 1))
    if len(parts) > 1:
        near_LZBS = _gathered(parts[1], (index_BS - cells).clamp(min=0))
        response_LZBS = torch.where(index_BS < cells, response_LZBS, near_LZBS)
    index_LBYS = index_BS[None, :, None].expand(*seen_LBYC.shape[:3], -1)
    index_LBS = index_BS.expand(len(energy_LBC), -1, -1)
    real_LBYS, imag_LBYS = seen_LBYC.gather(-1, index_LBYS).chunk(2, 2)
    return Source(
        response_LZBS,
        energy_LBC.gather(-1, index_LBS),
        torch.complex(real_LBYS, imag_LBYS),
    )


def _gathered(parts_LZBC: Tensor, index_BS: Tensor) -> Tensor:
    l, z = parts_LZBC.shape[:2]
    parts_LZBC = parts_LZBC.expand(-1, -1, len(index_BS), -1)
    return parts_LZBC.gather(-1, index_BS.expand(l, z, -1, -1))


def _averaged(
    log_likelihood_BQH: Tensor, power_BH: Tensor, nodes_BQ: Tensor
) -> tuple[Tensor, Tensor]:
    """Log of the likelihood averaged over the nodes, and the posterior mean of the noise, BH."""
    averaged_BH = log_likelihood_BQH.logsumexp(1) - log(nodes_BQ.shape[1])
    share_BQH = log_likelihood_BQH.softmax(1)
    noise_BQ1 = (10 ** (-nodes_BQ / 10)).unsqueeze(-1)
    return averaged_BH, power_BH * (share_BQH * noise_BQ1).sum(1)
