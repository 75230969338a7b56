"""Likelihood gain of one more source at candidate positions: the physics of `RisCovarianceNet`.

Nothing here has trained parameters. A source at a candidate position changes the covariance under
code l from R_l to R_l + p d_l d_lᴴ, d_l = Φ_l a, and the likelihood scores every candidate. Powers
are in the units of the sample, scaled to mean_l tr S_l = 1: noise and sources together have about
1/M. Everything is fp32 and complex64, as torch has no inverse in half precision.

Shapes: B scenes (or 1 where all scenes share it); L codes; M antennas; N elements; C candidates; G
those on the grid; X the M² reals of a packed matrix; 3 = azimuth in rad, elevation in rad,
reciprocal range in 1/m (in which the prior is uniform).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from models.linalg.entries import inverse_entries, pack_entries, product_entries, unpack_entries
from models.ris.estimators.mixture import weighted_factor
from models.ris.estimators.responses import (
    NearResponses,
    Responses,
    candidate_steering,
)
from models.ris.scene.geometry import ArrayConfig

__all__ = [
    "LEAST_POWER",
    "Grid",
    "Responses",
    "add_noise",
    "candidate_steering",
    "entries_of",
    "fit_noise",
    "gain_of_forms",
    "noise_of_forms",
    "position_grid",
    "source_gain",
    "weighted_factor",
    "with_noise",
]

# A source of 0.2/M is 7 dB below the total. With a lower limit noise peaks pass for sources: 0.08
# costs 0.15 dB of J at the tiny size.
LEAST_POWER = 0.2
_LEAST_NOISE = 0.004


@dataclass(frozen=True)
class Grid:
    """Centres of equal cells that fill the prior's region, the cells' widths, and its corners."""

    positions_G3: Tensor
    cell_3: Tensor
    low_3: Tensor
    high_3: Tensor


def position_grid(config: ArrayConfig, *, oversampling: float = 1.0) -> Grid:
    """Grid of candidate positions.

    A cell is 1/(side · oversampling) rad wide: at oversampling 1, half of the 2/side from peak to
    null of the broadside beam. Range has one cell for every π/2 rad of k D²/8 (1/r_min − 1/r_max),
    the change of the wavefront's phase at the surface's corner: 1.6 rad at the tiny size, 4.1 at
    full.
    """
    low = (-config.azimuth_max_rad, -config.elevation_max_rad, 1 / config.range_max_m)
    high = (config.azimuth_max_rad, config.elevation_max_rad, 1 / config.range_min_m)
    extent = [b - a for a, b in zip(low, high, strict=True)]
    bend_rad = 2 * pi / config.wavelength_m * config.aperture_m**2 / 8 * extent[2]
    per_rad = config.side * oversampling
    wanted = (extent[0] * per_rad, extent[1] * per_rad, bend_rad / (pi / 2))
    counts = [max(1, round(cells)) for cells in wanted]
    cell_3 = torch.tensor([width / count for width, count in zip(extent, counts, strict=True)])
    low_3, high_3 = torch.tensor(low), torch.tensor(high)
    index_G3 = torch.cartesian_prod(*[torch.arange(count) for count in counts])
    return Grid(low_3 + (index_G3 + 0.5) * cell_3, cell_3, low_3, high_3)


def source_gain(
    sample_BLMM: Tensor,
    inverse_BLMM: Tensor,
    responses: Sequence[Responses | NearResponses],
    *,
    snapshots: int,
    least_power: float = LEAST_POWER,
) -> tuple[Tensor, Tensor]:
    """Gain in log-likelihood from one more source at each candidate, and that source's power.

    gain = T Σ_l [p n_l / (1 + p m_l) − log(1 + p m_l)],  n = dᴴ R⁻¹ S R⁻¹ d,  m = dᴴ R⁻¹ d
    p = Σ_l (n_l − m_l) / Σ_l m_l², within least/M…1/M   (E n = m + p m² with a source of power p)

    The gain is exactly the log-likelihood of CN(0, R_l + p d dᴴ) minus that of CN(0, R_l)
    (determinant lemma and Sherman-Morrison).

    Args:
        sample_BLMM: S_l, scaled to mean_l tr S_l = 1.
        inverse_BLMM: R_l⁻¹ of all else, noise and other sources.
        responses: Candidates in one or more sets, C in all.
        snapshots: T, snapshots under each code.
        least_power: Least power of a source, times M.

    Returns:
        gain_BC in nats, and power_BC.
    """
    inverse_MMLB = entries_of(inverse_BLMM)
    seen_MMLB = product_entries(
        product_entries(inverse_MMLB, entries_of(sample_BLMM)), inverse_MMLB
    )
    return gain_of_forms(
        pack_entries(seen_MMLB),
        pack_entries(inverse_MMLB),
        responses,
        antennas=sample_BLMM.shape[-1],
        snapshots=snapshots,
        least_power=least_power,
    )


def gain_of_forms(
    seen_XLB: Tensor,
    inverse_XLB: Tensor,
    responses: Sequence[Responses | NearResponses],
    *,
    antennas: int,
    snapshots: int,
    least_power: float = LEAST_POWER,
) -> tuple[Tensor, Tensor]:
    """`source_gain` from R_l⁻¹ S_l R_l⁻¹ and R_l⁻¹ in packed form."""
    limits = (least_power / antennas, 1 / antennas)
    parts = [
        _gain(
            *candidates.quadratics(seen_XLB, inverse_XLB),
            snapshots=snapshots,
            limits=limits,
        )
        for candidates in responses
    ]
    gains, powers = zip(*parts, strict=True)
    return (torch.cat(gains, -1), torch.cat(powers, -1)) if len(parts) > 1 else parts[0]


def _gain(
    n_LBC: Tensor, m_LBC: Tensor, *, snapshots: int, limits: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Gains and powers of `source_gain` for one set of candidates; changes n in place."""
    power_BC = (n_LBC.sum(0) - m_LBC.sum(0)) / (m_LBC * m_LBC).sum(0)
    power_BC = power_BC.clamp_(*limits)
    growth_LBC = torch.addcmul(m_LBC.new_ones(()), m_LBC, power_BC)
    fit_BC = n_LBC.div_(growth_LBC).sum(0)
    # Four codes share one logarithm: with p m < 1e5 at 24 dB, fp32 would have room for seven.
    while len(growth_LBC) % 2 == 0 and len(growth_LBC) > len(m_LBC) // 4:
        first_LBC, second_LBC = growth_LBC.chunk(2)
        growth_LBC = first_LBC.mul_(second_LBC)
    return snapshots * (power_BC * fit_BC - growth_LBC.log_().sum(0)), power_BC


def fit_noise(sample_BLMM: Tensor, sources_BLMM: Tensor, log_noise_B: Tensor) -> Tensor:
    """One step of the log noise towards its greatest likelihood, with sources held.

    log σ² ← log σ² + log [Σ_l tr(R_l⁻¹ S_l R_l⁻¹) / Σ_l tr R_l⁻¹],  R_l = sources + σ² I

    The step is 0 where the likelihood is stationary. The noise is clamped to 0.004/M…1/M, 24 dB to
    0 dB below the total.
    """
    antennas = sample_BLMM.shape[-1]
    sources_XLB = pack_entries(entries_of(sources_BLMM))
    return noise_of_forms(entries_of(sample_BLMM), sources_XLB, log_noise_B, antennas=antennas)


def noise_of_forms(
    sample_MMLB: Tensor, sources_XLB: Tensor, log_noise_B: Tensor, *, antennas: int
) -> Tensor:
    """`fit_noise` of the sample by its entries, and of sources in packed form."""
    rest_XLB = with_noise(sources_XLB, log_noise_B, antennas=antennas)
    inverse_MMLB = inverse_entries(unpack_entries(rest_XLB, antennas))
    half_MMLB = product_entries(inverse_MMLB, sample_MMLB)
    # tr(X Y) = Re Σ X ∘ Ȳ for a Hermitian Y.
    seen_MMLB2 = torch.view_as_real(half_MMLB) * torch.view_as_real(inverse_MMLB)
    trace_B = inverse_MMLB.diagonal().real.sum((0, 2))
    # First over the outermost axes, whose sums run along memory.
    ratio_B = seen_MMLB2.sum((0, 1)).sum((0, 2)) / trace_B
    return (log_noise_B + ratio_B.log()).clamp(log(_LEAST_NOISE / antennas), -log(antennas))


def entries_of(matrix_BLMM: Tensor) -> Tensor:
    """Matrices by their entries, MMLB."""
    return matrix_BLMM.permute(2, 3, 1, 0).contiguous()


def with_noise(sources_XLB: Tensor, log_noise_B: Tensor, *, antennas: int) -> Tensor:
    """R_l + σ² I in packed form."""
    noisy_XLB = sources_XLB.clone()
    noisy_XLB[:antennas] += log_noise_B.exp()
    return noisy_XLB


def add_noise(sources_BLMM: Tensor, log_noise_B: Tensor) -> Tensor:
    """R_l + σ² I under every code."""
    noisy_BLMM = sources_BLMM.clone()
    noisy_BLMM.diagonal(dim1=-2, dim2=-1).add_(log_noise_B.exp()[:, None, None])
    return noisy_BLMM
