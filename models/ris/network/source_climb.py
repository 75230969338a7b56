"""Gauss–Newton step of a candidate source's position, and the accuracy of that position.

As in `estimators.posterior`, nothing has trained parameters, everything is fp32 and complex64, and
powers are in the units of the sample.

Shapes: B scenes (sensing: or 1), L codes, M antennas, N elements; 4 = the source itself and its
derivatives; 3 = azimuth in rad, elevation in rad, reciprocal range in 1/m.
"""

import torch
from torch import Tensor

from models.ris.estimators.posterior import LEAST_POWER
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
    elements_N3 = element_positions(config, device=place_B3.device)
    a_BN1, slopes_BN13 = place_derivatives(
        place_B3.unsqueeze(1), elements_N3, wavelength_m=config.wavelength_m
    )
    both_BN4 = torch.cat((a_BN1, slopes_BN13.squeeze(2)), -1)
    c, l, m, n = sensing_BLMN.shape
    d_BLM4 = (sensing_BLMN.reshape(c, l * m, n) @ both_BN4).view(-1, l, m, 4)
    # By Sherman–Morrison, Q x = R⁻¹ x − R⁻¹ d (dᴴ R⁻¹ x) p / (1 + p m).
    white_BLM4 = inverse_BLMM @ d_BLM4
    heard_BLM1 = d_BLM4[..., :1]
    m_BL4 = (heard_BLM1.conj() * white_BLM4).sum(2)
    n_BL = _form(sample_BLMM, white_BLM4[..., :1], white_BLM4[..., :1]).squeeze(-1).real
    loudness_BL = m_BL4[..., 0].real
    power_B1 = (n_BL - loudness_BL).sum(1, keepdim=True) / loudness_BL.square().sum(1, keepdim=True)
    power_B1 = power_B1.clamp(LEAST_POWER / m, 1 / m)
    share_BL = power_B1 / (1 + power_B1 * loudness_BL)
    solved_BLM4 = white_BLM4 - white_BLM4[..., :1] * (share_BL.unsqueeze(-1) * m_BL4).unsqueeze(2)
    d_Q_BL4 = (heard_BLM1.conj() * solved_BLM4).sum(2)
    fit_BL3 = _form(sample_BLMM, solved_BLM4[..., :1], solved_BLM4[..., 1:]) - d_Q_BL4[..., 1:]
    slope_B3 = 2 * power_B1 * fit_BL3.real.sum(1)
    mixed_BL33 = (d_BLM4[..., 1:].mH @ solved_BLM4[..., 1:]).real
    crossed_BL3 = d_Q_BL4[..., 1:]
    crossed_BL33 = (crossed_BL3.unsqueeze(-1) * crossed_BL3.unsqueeze(-2)).real
    loud_BL11 = d_Q_BL4[..., 0].real[..., None, None]
    information_B33 = (loud_BL11 * mixed_BL33 + crossed_BL33).sum(1)
    information_B33 = 2 * power_B1.square().unsqueeze(-1) * information_B33
    inverse_B33 = torch.linalg.inv_ex(information_B33).inverse
    step_B3 = (inverse_B33 @ slope_B3.unsqueeze(-1)).squeeze(-1)
    variance_B3 = inverse_B33.diagonal(dim1=-2, dim2=-1) / config.snapshots
    return step_B3, variance_B3.clamp(min=0).sqrt()


def _form(matrix_BLMM: Tensor, left_BLM1: Tensor, right_BLMX: Tensor) -> Tensor:
    """leftᴴ X right under every code, (B, L, X)."""
    return (left_BLM1.conj() * (matrix_BLMM @ right_BLMX)).sum(2)
