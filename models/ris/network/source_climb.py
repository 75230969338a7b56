"""Gauss–Newton step of a candidate source's position, and the accuracy of that position.

As in `estimators.posterior`, nothing has trained parameters, everything is fp32 and complex64, and
powers are in the units of the sample.

Shapes: B scenes (sensing: or 1), L codes, M antennas, N elements; 4 = the source itself and its
derivatives; 3 = azimuth in rad, elevation in rad, reciprocal range in 1/m.
"""

import torch
from torch import Tensor

from models.linalg.entries import product_entries
from models.ris.estimators.posterior import LEAST_POWER, entries_of
from models.ris.scene.geometry import ArrayConfig, element_positions, place_derivatives


def climb_source(
    sample_BLMM: Tensor,
    inverse_BLMM: Tensor,
    place_B3: Tensor,
    sensing_BLMN: Tensor,
    config: ArrayConfig,
) -> tuple[Tensor, Tensor]:
    """One Gauss–Newton step of one more source's position, and the position's deviation.

    δ = J⁻¹ g,  g_i = 2 p Σ_l Re d_lᴴ (Q S Q − Q) d_li,  d_li = Φ_l ∂_i a,  Q = (R_l + p d_l d_lᴴ)⁻¹
    J_ij = 2 p² Σ_l [(d_lᴴ Q d_l) Re d_liᴴ Q d_lj + Re (d_lᴴ Q d_li)(d_lᴴ Q d_lj)]

    g is the gradient of the log-likelihood and J its Fisher information, with all else held; p is
    as in `source_gain`.

    Args:
        sample_BLMM: S_l, scaled to mean_l tr S_l = 1.
        inverse_BLMM: R_l⁻¹ of all else, noise and other sources.
        place_B3: Place to start from.
        sensing_BLMN: Φ_l, complex64.
        config: The size.

    Returns:
        step_B3, and deviation_B3 = (J⁻¹)_ii^½ / √T, both in the units of a place.
    """
    inverse_MMLB = entries_of(inverse_BLMM)
    seen_MMLB = product_entries(
        product_entries(inverse_MMLB, entries_of(sample_BLMM)), inverse_MMLB
    )
    return climb_by_forms(seen_MMLB, inverse_MMLB, place_B3, sensing_BLMN, config)


def climb_by_forms(
    seen_MMLB: Tensor,
    inverse_MMLB: Tensor,
    place_B3: Tensor,
    sensing_BLMN: Tensor,
    config: ArrayConfig,
) -> tuple[Tensor, Tensor]:
    """`climb_source` from R_l⁻¹ S_l R_l⁻¹ and R_l⁻¹ by their entries."""
    d_M4LB = _heard(place_B3, sensing_BLMN, config)
    conjugate_M4LB = d_M4LB.conj().resolve_conj()
    heard_M1LB = conjugate_M4LB[:, :1]
    n_4LB = (product_entries(seen_MMLB, heard_M1LB.conj()).conj() * d_M4LB).sum(0)
    white_M4LB = product_entries(inverse_MMLB, d_M4LB)
    m_44LB = (conjugate_M4LB.unsqueeze(2) * white_M4LB.unsqueeze(1)).sum(0)
    m_4LB = m_44LB[0]
    loudness_LB = m_4LB[0].real
    power_B = (n_4LB[0].real - loudness_LB).sum(0) / loudness_LB.square().sum(0)
    power_B = power_B.clamp(LEAST_POWER / len(d_M4LB), 1 / len(d_M4LB))
    # By Sherman–Morrison, xᴴ Q y = xᴴ R⁻¹ y − (xᴴ R⁻¹ d)(dᴴ R⁻¹ y) p / (1 + p m).
    left_LB = 1 / (1 + power_B * loudness_LB)
    crossed_3LB = left_LB * m_4LB[1:]
    lost_3LB = power_B * crossed_3LB
    fit_3LB = left_LB * (n_4LB[1:] - lost_3LB * n_4LB[0]) - crossed_3LB
    slope_B3 = 2 * (power_B * fit_3LB.real.sum(1)).T
    mixed_33LB = (m_44LB[1:, 1:] - m_4LB[1:, None].conj() * lost_3LB).real
    crossed_33LB = (crossed_3LB.unsqueeze(1) * crossed_3LB).real
    information_33B = (left_LB * loudness_LB * mixed_33LB + crossed_33LB).sum(2)
    information_B33 = (2 * power_B.square() * information_33B).permute(2, 0, 1)
    inverse_B33 = torch.linalg.inv_ex(information_B33).inverse
    step_B3 = (inverse_B33 @ slope_B3.unsqueeze(-1)).squeeze(-1)
    variance_B3 = inverse_B33.diagonal(dim1=-2, dim2=-1) / config.snapshots
    return step_B3, variance_B3.clamp(min=0).sqrt()


def _heard(place_B3: Tensor, sensing_BLMN: Tensor, config: ArrayConfig) -> Tensor:
    """Φ_l a and its derivatives, M4LB."""
    elements_N3 = element_positions(config, device=place_B3.device)
    a_NB, slopes_NB3 = place_derivatives(place_B3, elements_N3, wavelength_m=config.wavelength_m)
    both_N4B = torch.cat((a_NB.unsqueeze(1), slopes_NB3.transpose(1, 2)), 1)
    c, l, m, n = sensing_BLMN.shape
    if c > 1:
        heard_BX4 = sensing_BLMN.reshape(c, l * m, n) @ both_N4B.permute(2, 0, 1)
        return heard_BX4.view(c, l, m, 4).permute(2, 3, 1, 0).contiguous()
    heard_X4B = sensing_BLMN.reshape(l * m, n) @ both_N4B.flatten(1)
    return heard_X4B.view(l, m, 4, -1).permute(1, 2, 0, 3).contiguous()
