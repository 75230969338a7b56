"""The ring around each source, against which `losses.peak_contrast` measures its peak.

Shapes: B scenes; N elements; K sources at most; P positions on the ring around a source; 3 =
azimuth in rad, elevation in rad, range in m.
"""

from math import pi

import torch
from torch import Tensor

from models.ris.scene.geometry import ArrayConfig, element_positions, steering

# Eight directions are enough: between them the main lobe is one smooth bump.
_RING_POINTS = 8


def ring_steering(positions_BK3: Tensor, config: ArrayConfig) -> Tensor:
    """Steering vectors of eight positions around each source, 1/side rad away, at its range.

    1/side rad is the half-power half-width of the broadside beam, 0.443 λ/(side λ/2), rounded up.
    The ring is near enough to belong to the peak, and far enough for a sharp peak to have fallen.

    Args:
        positions_BK3: Azimuth in rad, elevation in rad, range in m; NaN for an absent source.
        config: The size.

    Returns:
        ring_BNKP, complex64, unit modulus, finite for absent sources too.
    """
    angle_P = torch.arange(_RING_POINTS, device=positions_BK3.device) * (2 * pi / _RING_POINTS)
    offset_P3 = torch.stack((angle_P.cos(), angle_P.sin(), torch.zeros_like(angle_P)), -1)
    centre_BK3 = positions_BK3.nan_to_num(nan=1.0)
    ring_BKP3 = centre_BK3.unsqueeze(-2) + offset_P3 / config.side
    elements_N3 = element_positions(config, device=positions_BK3.device)
    ring_BNX = steering(ring_BKP3.flatten(1, 2), elements_N3, wavelength_m=config.wavelength_m)
    return ring_BNX.reshape(*ring_BNX.shape[:2], -1, _RING_POINTS)
