"""Likelihood gain of one more source at candidate positions: the physics of `RisCovarianceNet`.

Nothing here has trained parameters. A source at a candidate position changes the covariance under
code l from R_l to R_l + p d_l d_lᴴ, d_l = Φ_l a, and the likelihood scores every candidate. Powers
are in the units of the sample, scaled to mean_l tr S_l = 1: noise and sources together have about
1/M. Everything is fp32 and complex64, as torch has no inverse in half precision.

Shapes: B scenes (or 1 where all scenes share it); L codes; M antennas; N elements; C candidates; G
those on the grid; D = 2B; X the M² reals of a Hermitian M×M matrix; 3 = azimuth in rad, elevation
in rad, reciprocal range in 1/m (in which the prior is uniform).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from models.linalg.gram import nystrom_factor, trace
from models.linalg.hermitian import pack_hermitian, unpack_hermitian
from models.ris.scene.geometry import ArrayConfig, as_positions, element_positions, steering

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


def candidate_steering(positions_BC3: Tensor, config: ArrayConfig) -> Tensor:
    """Steering vectors, (…, N, C), of positions given by reciprocal range."""
    elements_N3 = element_positions(config, device=positions_BC3.device)
    return steering(as_positions(positions_BC3), elements_N3, wavelength_m=config.wavelength_m)


class Responses:
    """Responses of the base station to candidate sources: d_l = Φ_l a, of shape BLMC.

    With one installation and one grid for all scenes, quadratic forms and covariances of all scenes
    are one real matrix product per code, several times faster than the general form.

    Args:
        steering_BNC: a, complex64.
        sensing_BLMN: Φ_l, complex64.
    """

    def __init__(self, steering_BNC: Tensor, sensing_BLMN: Tensor) -> None:
        b, l, m, n = sensing_BLMN.shape
        response_BXC = sensing_BLMN.view(b, l * m, n) @ steering_BNC
        self.response_BLMC = response_BXC.view(len(response_BXC), l, m, response_BXC.shape[-1])
        self.table_LCX: Tensor | None = None
        if len(self.response_BLMC) == 1:
            d_LCM = self.response_BLMC[0].mT
            self.table_LCX = pack_hermitian(d_LCM.unsqueeze(-1) * d_LCM.unsqueeze(-2).conj())

    def quadratic(self, form_BLMM: Tensor) -> Tensor:
        """dᴴ X d, of shape LBC, for a Hermitian form X under every code."""
        if self.table_LCX is not None:
            return pack_hermitian(form_BLMM).transpose(0, 1) @ self.table_LCX.mT
        d_BLMC = self.response_BLMC
        turned_BLMC = form_BLMM @ d_BLMC
        products_BLMC = turned_BLMC.real * d_BLMC.real + turned_BLMC.imag * d_BLMC.imag
        return products_BLMC.sum(2).transpose(0, 1)

    def covariance(self, power_BC: Tensor) -> Tensor:
        """Σ_c p_c d_lc d_lcᴴ, of shape BLMM."""
        if self.table_LCX is not None:
            packed_BLX = (power_BC @ self.table_LCX).transpose(0, 1)
            return unpack_hermitian(packed_BLX, self.response_BLMC.shape[2])
        return (self.response_BLMC * power_BC[:, None, None, :]) @ self.response_BLMC.mH


def source_gain(
    sample_BLMM: Tensor,
    inverse_BLMM: Tensor,
    responses: Sequence[Responses],
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
    antennas = sample_BLMM.shape[-1]
    seen_BLMM = inverse_BLMM @ sample_BLMM @ inverse_BLMM
    parts = [_both(candidates, seen_BLMM, inverse_BLMM) for candidates in responses]
    n_LBC, m_LBC = torch.cat(parts, -1).chunk(2, 1)
    power_BC = (n_LBC - m_LBC).sum(0) / m_LBC.square().sum(0)
    power_BC = power_BC.clamp(least_power / antennas, 1 / antennas)
    growth_LBC = 1 + power_BC * m_LBC
    # Two codes share one logarithm: with p m < 1e5 at 24 dB, fp32 would have room for seven.
    half, odd = divmod(len(growth_LBC), 2)
    pairs_BC = (growth_LBC[:half] * growth_LBC[half : 2 * half]).log().sum(0)
    if odd:
        pairs_BC = pairs_BC + growth_LBC[-1].log()
    return snapshots * (power_BC * (n_LBC / growth_LBC).sum(0) - pairs_BC), power_BC


def _both(candidates: Responses, seen_BLMM: Tensor, inverse_BLMM: Tensor) -> Tensor:
    """Quadratic forms of both matrices, one above the other, of shape LDC."""
    if candidates.table_LCX is not None:
        return candidates.quadratic(torch.cat((seen_BLMM, inverse_BLMM)))
    forms = (seen_BLMM, inverse_BLMM)
    return torch.cat([candidates.quadratic(form_BLMM) for form_BLMM in forms], 1)


def fit_noise(sample_BLMM: Tensor, sources_BLMM: Tensor, log_noise_B: Tensor) -> Tensor:
    """One step of the log noise towards its greatest likelihood, with sources held.

    log σ² ← log σ² + log [Σ_l tr(R_l⁻¹ S_l R_l⁻¹) / Σ_l tr R_l⁻¹],  R_l = sources + σ² I

    The step is 0 where the likelihood is stationary. The noise is clamped to 0.004/M…1/M, 24 dB to
    0 dB below the total.
    """
    antennas = sample_BLMM.shape[-1]
    inverse_BLMM = torch.linalg.inv_ex(add_noise(sources_BLMM, log_noise_B)).inverse
    seen_BLMM = inverse_BLMM @ sample_BLMM @ inverse_BLMM
    ratio_B = trace(seen_BLMM).sum(-1) / trace(inverse_BLMM).sum(-1)
    return (log_noise_B + ratio_B.log()).clamp(log(_LEAST_NOISE / antennas), -log(antennas))


def add_noise(sources_BLMM: Tensor, log_noise_B: Tensor) -> Tensor:
    """R_l + σ² I under every code."""
    noise_BLM = log_noise_B.exp()[:, None, None].expand(sources_BLMM.shape[:-1])
    return sources_BLMM + torch.diag_embed(noise_BLM)


def weighted_factor(sets: Sequence[tuple[Tensor, Tensor]], start_BNR: Tensor) -> Tensor:
    """Factor F_BNR of R = Σ w a aᴴ in its dominant directions.

    Args:
        sets: Pairs of steering vectors, BNC (B is 1 where all scenes share them), and weights, BC.
        start_BNR: One column for each wanted direction: see `nystrom_factor`.
    """

    def apply(columns_BNR: Tensor) -> Tensor:
        images = [
            _times(steering_BNC, weights_BC.unsqueeze(-1) * _times(steering_BNC.mH, columns_BNR))
            for steering_BNC, weights_BC in sets
        ]
        return torch.stack(images).sum(0)

    return nystrom_factor(apply, start_BNR)


def _times(matrix_BXY: Tensor, columns_BYR: Tensor) -> Tensor:
    """Matrix product; a matrix that all scenes share multiplies the columns of all at once."""
    if len(matrix_BXY) > 1:
        return matrix_BXY @ columns_BYR
    b, y, r = columns_BYR.shape
    flat_XC = matrix_BXY[0] @ columns_BYR.transpose(0, 1).reshape(y, b * r)
    return flat_XC.view(len(flat_XC), b, r).transpose(0, 1)
