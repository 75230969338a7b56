"""Gauss–Newton step of a candidate source's position, and the accuracy of that position.

As in `estimators.posterior`, nothing has trained parameters, everything is fp32 and complex64, and
powers are in the units of the sample.

Shapes: B scenes (sensing: or 1), L codes, M antennas, N elements; X vectors; 4 = the
source itself and its derivatives; 8 = twice those; 3 = azimuth in rad, elevation in rad, reciprocal range in 1/m.
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
    *,
    seen_BLMM: Tensor | None = None,
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
        seen_BLMM: R_l⁻¹ S_l R_l⁻¹; computed unless given.

    Returns:
        step_B3, and deviation_B3 = (J⁻¹)_ii^½ / √T, both in the units of a place.
    """
    elements_N3 = element_positions(config, device=place_B3.device)
    a_BN1, slopes_BN13 = place_derivatives(
        place_B3.unsqueeze(1), elements_N3, wavelength_m=config.wavelength_m
    )
    both_BN4 = torch.cat((a_BN1, slopes_BN13.squeeze(2)), -1)
    d_BLM4 = _heard(both_BN4, sensing_BLMN)
    if seen_BLMM is None:
        seen_BLMM = inverse_BLMM @ sample_BLMM @ inverse_BLMM
    white_BLM8 = torch.cat((inverse_BLMM @ d_BLM4, seen_BLMM @ d_BLM4), -1)
    forms_BL48 = d_BLM4.mH @ white_BLM8
    m_BL44, n_BL4 = forms_BL48[..., :4], forms_BL48[..., 0, 4:]
    m_BL4 = m_BL44[..., 0, :]
    loudness_BL = m_BL4[..., 0].real
    excess_BL = n_BL4[..., 0].real - loudness_BL
    power_B1 = excess_BL.sum(1, keepdim=True) / loudness_BL.square().sum(1, keepdim=True)
    antennas = sensing_BLMN.shape[2]
    power_B1 = power_B1.clamp(LEAST_POWER / antennas, 1 / antennas)
    # By Sherman–Morrison, xᴴ Q y = xᴴ R⁻¹ y − (xᴴ R⁻¹ d)(dᴴ R⁻¹ y) p / (1 + p m).
    left_BL = 1 / (1 + power_B1 * loudness_BL)
    lost_BL3 = (power_B1 * left_BL).unsqueeze(-1) * m_BL4[..., 1:]
    crossed_BL3 = left_BL.unsqueeze(-1) * m_BL4[..., 1:]
    seen_BL3 = n_BL4[..., 1:] - lost_BL3 * n_BL4[..., :1]
    fit_BL3 = left_BL.unsqueeze(-1) * seen_BL3 - crossed_BL3
    slope_B3 = 2 * power_B1 * fit_BL3.real.sum(1)
    mixed_BL33 = m_BL44[..., 1:, 1:] - m_BL4[..., 1:, None].conj() * lost_BL3.unsqueeze(-2)
    crossed_BL33 = (crossed_BL3.unsqueeze(-1) * crossed_BL3.unsqueeze(-2)).real
    loud_BL11 = (left_BL * loudness_BL)[..., None, None]
    information_B33 = (loud_BL11 * mixed_BL33.real + crossed_BL33).sum(1)
    information_B33 = 2 * power_B1.square().unsqueeze(-1) * information_B33
    inverse_B33 = torch.linalg.inv_ex(information_B33).inverse
    step_B3 = (inverse_B33 @ slope_B3.unsqueeze(-1)).squeeze(-1)
    variance_B3 = inverse_B33.diagonal(dim1=-2, dim2=-1) / config.snapshots
    return step_B3, variance_B3.clamp(min=0).sqrt()


def _heard(steering_BNX: Tensor, sensing_BLMN: Tensor) -> Tensor:
    """Φ_l a of each scene's own vectors, (B, L, M, X)."""
    c, l, m, n = sensing_BLMN.shape
    b, _, x = steering_BNX.shape
    if c > 1:
        return (sensing_BLMN.reshape(c, l * m, n) @ steering_BNX).view(b, l, m, x)
    flat_NX = steering_BNX.transpose(0, 1).reshape(n, b * x)
    heard_LMBX = (sensing_BLMN.reshape(l * m, n) @ flat_NX).view(l, m, b, x)
    return heard_LMBX.permute(2, 0, 1, 3).contiguous()
