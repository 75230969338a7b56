"""The wall: the channel from a surface to its base station, and the phase codes it plays.

Shapes: B installations, N elements, M antennas, L codes.
"""

from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor

from models.ris.scene.geometry import ArrayConfig, direction, element_positions

# The base station stands 50 λ from the surface, beyond the sources of every size, and near enough
# for the line of sight over the full surface (Rayleigh distance 121 λ) to be more than rank one.
STATION_RANGE_WL = 50.0


@dataclass(frozen=True)
class Installation:
    """A wall: the channel and the phase codes, which stay the same from scene to scene.

    Attributes:
        channel_BMN: H, complex64, unit mean power an entry; B is 1 or the number of scenes.
        codes_BLN: c_l, complex64, unit modulus, phases on the shifter's grid.
    """

    channel_BMN: Tensor
    codes_BLN: Tensor

    @property
    def sensing_BLMN(self) -> Tensor:
        """Φ_l = H diag(c_l) / √N, complex64; computed anew at every access."""
        scaled_BMN = self.channel_BMN / sqrt(self.channel_BMN.shape[-1])
        return scaled_BMN.unsqueeze(-3) * self.codes_BLN.unsqueeze(-2)

    def __len__(self) -> int:
        return self.channel_BMN.shape[0]

    def to(self, device: torch.device | str) -> "Installation":
        """Return the same installation on a device."""
        return Installation(self.channel_BMN.to(device), self.codes_BLN.to(device))

    def select(self, index: slice | Tensor) -> "Installation":
        """Return the installation of some scenes; itself where all scenes share it."""
        if len(self) == 1:
            return self
        return Installation(self.channel_BMN[index], self.codes_BLN[index])


def draw_installation(
    config: ArrayConfig,
    generator: torch.Generator,
    *,
    batch: int = 1,
    device: torch.device | str | None = None,
) -> Installation:
    """Draw walls: a Rician channel to the base station and random quantised phase codes.

    H = √(κ/(κ+1)) exp(−jk d_mn) + √(1/(κ+1)) W,   W ~ CN(0, 1),   E|H_mn|² = 1

    d_mn is the exact distance from element n to antenna m of a uniform linear array (λ/2, along y)
    50 λ from the surface, its direction uniform within ±60° azimuth and ±30° elevation. Both parts
    have unit mean power, so κ is the K-factor; κ is uniform in dB.

    Args:
        config: The size.
        generator: Source of all randomness; the draw happens on its device.
        batch: Number of independent installations.
        device: Device of the result. Default: the generator's.
    """
    where = generator.device
    N, M, L = config.elements, config.antennas, config.codes

    los_BMN = _line_of_sight(config, torch.rand(batch, 2, generator=generator, device=where))
    rician_db_B11 = uniform(
        (batch, 1, 1), config.rician_min_db, config.rician_max_db, generator=generator
    )
    kappa_B11 = 10 ** (rician_db_B11 / 10)
    scatter_BMN = torch.randn(batch, M, N, dtype=torch.complex64, generator=generator, device=where)
    channel_BMN = (kappa_B11.sqrt() * los_BMN + scatter_BMN) / (kappa_B11 + 1).sqrt()
    levels = 2**config.code_bits
    level_BLN = torch.randint(levels, (batch, L, N), generator=generator, device=where)
    phase_BLN = level_BLN * (2 * pi / levels)
    codes_BLN = torch.complex(phase_BLN.cos(), phase_BLN.sin())
    return Installation(channel_BMN, codes_BLN).to(where if device is None else device)


def _line_of_sight(config: ArrayConfig, unit_B2: Tensor) -> Tensor:
    """exp(−jk d_mn), BMN, to a base station in the direction given by two uniform numbers.

    float32 distances are enough: k d = 314 rad errs by 314 · 2⁻²⁴ = 2e-5 rad.
    """
    limits = (config.azimuth_max_rad, config.elevation_max_rad)
    azimuth_B, elevation_B = (
        limit * (2 * unit_B - 1) for limit, unit_B in zip(limits, unit_B2.unbind(-1), strict=True)
    )
    station_B13 = direction(azimuth_B, elevation_B).unsqueeze(1) * (
        STATION_RANGE_WL * config.wavelength_m
    )
    antenna_M = torch.arange(config.antennas, device=unit_B2.device, dtype=torch.float32)
    offset_M = (antenna_M - (config.antennas - 1) / 2) * (config.wavelength_m / 2)
    offset_M3 = torch.stack((torch.zeros_like(offset_M), offset_M, torch.zeros_like(offset_M)), -1)
    elements_N3 = element_positions(config, device=unit_B2.device)
    path_BMN3 = (station_B13 + offset_M3).unsqueeze(2) - elements_N3
    phase_BMN = path_BMN3.square().sum(-1).sqrt() * (-2 * pi / config.wavelength_m)
    return torch.complex(phase_BMN.cos(), phase_BMN.sin())


def uniform(
    shape: tuple[int, ...], low: float, high: float, *, generator: torch.Generator
) -> Tensor:
    """Uniform float32 draws in [low, high) on the generator's device."""
    unit = torch.rand(shape, generator=generator, device=generator.device)
    return low + (high - low) * unit
