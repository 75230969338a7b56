"""The size of a problem, and the exact spherical-wave geometry of the surface.

The surface lies in the y-z plane, centred at the origin; +x points away from the wall.

Shapes: N elements, K sources; leading dimensions (...) are free. Angles in rad, lengths in m.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import pi, sqrt
from types import MappingProxyType

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ArrayConfig:
    """One size of the problem.

    Attributes:
        side: Elements along each edge of the square surface; N = side².
        antennas: M, antennas of the base station.
        codes: L, phase codes that the surface plays in one scene.
        snapshots: T, snapshots under each code. Keep 1: with T = 8 plain MUSIC wins.
        max_sources: K; a scene has 1…K sources.
        rank: Default rank r of the network's covariance factor.
        wavelength_m: λ; elements stand λ/2 apart.
        range_min_m, range_max_m: Source ranges, uniform in 1/r.
        azimuth_max_rad, elevation_max_rad: Source angles, uniform within ± these.
        snr_min_db, snr_max_db: Signal-to-noise ratio at the base station, uniform in dB.
        power_spread_db: Source powers before scaling, uniform in dB within ± this.
        rician_min_db, rician_max_db: K-factor of an installation's channel, uniform in dB.
        code_bits: Bits of an element's phase shifter.
        problem_seed: Fixes installation, validation and test sets; a constant of the size.
    """

    side: int
    antennas: int
    codes: int
    snapshots: int = 1
    max_sources: int
    rank: int
    wavelength_m: float
    range_min_m: float
    range_max_m: float
    azimuth_max_rad: float = pi / 3
    elevation_max_rad: float = pi / 6
    snr_min_db: float = -5.0
    snr_max_db: float = 20.0
    power_spread_db: float = 3.0
    rician_min_db: float = 0.0
    rician_max_db: float = 3.0
    code_bits: int = 3
    problem_seed: int = 0

    def __post_init__(self) -> None:
        counts = ("side", "antennas", "codes", "snapshots", "max_sources", "rank", "code_bits")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; write 1 or more")
        if not self.aperture_m / 2 < self.range_min_m <= self.range_max_m:
            raise ValueError(
                f"range_min_m {self.range_min_m} and range_max_m {self.range_max_m}: write "
                f"aperture/2 = {self.aperture_m / 2:.3f} m < range_min_m <= range_max_m"
            )
        if self.max_sources > self.elements:
            raise ValueError(f"{self.max_sources} sources on {self.elements} elements; write fewer")

    @property
    def elements(self) -> int:
        """N = side²."""
        return self.side**2

    @property
    def aperture_m(self) -> float:
        """D, the diagonal between outermost elements: √2 (side − 1) λ/2, in m."""
        return sqrt(2) * (self.side - 1) * self.wavelength_m / 2


# Ranges go from 1.2 D to 0.4-0.7 of the Rayleigh distance 2 D²/λ, where range is identifiable.
SIZES: Mapping[str, ArrayConfig] = MappingProxyType(
    {
        "unit": ArrayConfig(
            side=4, antennas=4, codes=8, max_sources=2, rank=3,
            wavelength_m=0.1, range_min_m=0.3, range_max_m=0.9,
        ),
        "tiny": ArrayConfig(
            # Wall 5 is the one of 0…6 whose per-code MUSIC is nearest to -5.0 dB, about the mean.
            side=6, antennas=4, codes=16, max_sources=2, rank=3, problem_seed=5,
            wavelength_m=0.1, range_min_m=0.45, range_max_m=1.8,
        ),
        "base": ArrayConfig(
            side=8, antennas=8, codes=16, max_sources=3, rank=4,
            wavelength_m=0.1, range_min_m=0.6, range_max_m=3.0,
        ),
        "full": ArrayConfig(
            side=12, antennas=16, codes=16, max_sources=5, rank=8,
            wavelength_m=0.3, range_min_m=2.8, range_max_m=15.0,
        ),
    }
)  # fmt: skip


def element_positions(config: ArrayConfig, *, device: torch.device | None = None) -> Tensor:
    """Element positions, centred in the y-z plane.

    q_n = (0, y, z), y and z in {(i − (side − 1)/2) λ/2}

    Returns:
        positions_N3, float32, in m; z varies fastest. All callers share it: do not change it.
    """
    return _element_positions(config.side, config.wavelength_m, torch.device(device or "cpu"))


@lru_cache(maxsize=16)
def _element_positions(side: int, wavelength_m: float, device: torch.device) -> Tensor:
    # Tensors of inference mode could not be saved for a gradient later.
    with torch.inference_mode(False):
        index = torch.arange(side, device=device, dtype=torch.float32)
        offset_m = (index - (side - 1) / 2) * (wavelength_m / 2)
        y_m, z_m = torch.meshgrid(offset_m, offset_m, indexing="ij")
        return torch.stack((torch.zeros_like(y_m), y_m, z_m), dim=-1).reshape(-1, 3)


def direction(azimuth_rad: Tensor, elevation_rad: Tensor) -> Tensor:
    """Unit vector towards (φ, θ): u = (cos θ cos φ, cos θ sin φ, sin θ).

    Returns:
        The inputs' shape with a last dimension of 3 appended; dimensionless.
    """
    cos_elevation = elevation_rad.cos()
    return torch.stack(
        (
            cos_elevation * azimuth_rad.cos(),
            cos_elevation * azimuth_rad.sin(),
            elevation_rad.sin(),
        ),
        dim=-1,
    )


def steering(positions_K3: Tensor, elements_N3: Tensor, *, wavelength_m: float) -> Tensor:
    """Near-field steering vectors, exact spherical wave, phase reference at the centre.

    a_n = exp{−jk (|p − q_n| − |p|)},  k = 2π/λ, computed without cancellation as
    |p − q| − |p| = (|q|² − 2 r q·u) / (√(r² + |q|² − 2 r q·u) + r)

    The difference of two distances in float32 would lose |p|·2⁻²⁴; the quotient loses only
    2⁻²⁴ of the aperture. The Fresnel phase (y² + z²)/2r is not used: at 0.5 m it correlates 0.29
    with this one (12×12, λ = 0.3 m).

    Args:
        positions_K3: (…, K, 3) azimuth in rad, elevation in rad, range in m (> 0).
        elements_N3: Element positions in the y-z plane, in m.
        wavelength_m: λ, in m.

    Returns:
        steering_NK: (…, N, K), complex, unit modulus.
    """
    phase_NK = steering_phase(positions_K3, elements_N3, wavelength_m=wavelength_m)
    return torch.complex(phase_NK.cos(), phase_NK.sin())


def steering_phase(positions_K3: Tensor, elements_N3: Tensor, *, wavelength_m: float) -> Tensor:
    """Phases of `steering`, (…, N, K), in rad."""
    azimuth_1K, elevation_1K, range_1K = positions_K3.movedim(-1, 0).unsqueeze(-2).contiguous()
    square_N1 = elements_N3.square().sum(-1, keepdim=True)
    # A matrix product would be rounded to half precision by autocast: 25 rad of phase to 0.1 rad.
    q_y_N1, q_z_N1 = elements_N3[:, 1:2], elements_N3[:, 2:3]  # the surface is at x = 0
    y_1K, z_1K = elevation_1K.cos() * azimuth_1K.sin(), elevation_1K.sin()
    along_NK = torch.addcmul(q_y_N1 * y_1K, q_z_N1, z_1K)
    cross_NK = torch.addcmul(square_N1, along_NK, -2 * range_1K)
    distance_NK = (range_1K.square() + cross_NK).sqrt()
    phase_NK: Tensor = cross_NK / (distance_NK + range_1K) * (-2 * pi / wavelength_m)
    return phase_NK


def steering_derivatives(
    positions_K3: Tensor, elements_N3: Tensor, *, wavelength_m: float
) -> tuple[Tensor, Tensor]:
    """Steering vectors and their derivatives by azimuth, elevation and range.

    ∂a/∂x = −jk ∂d/∂x · a,   d = |p − q| − |p|,   ρ = |p − q|
    ∂d/∂φ = −r q·∂u/∂φ / ρ,   ∂d/∂θ = −r q·∂u/∂θ / ρ
    ∂d/∂r = (r − q·u)/ρ − 1 = −(|q|² − (q·u)²) / (ρ (r − q·u + ρ))

    Args:
        positions_K3: As in `steering`.
        elements_N3: As in `steering`, of the same dtype.
        wavelength_m: λ, in m.

    Returns:
        steering_NK: (…, N, K), complex, and derivatives_NK3: (…, N, K, 3), in 1/rad, 1/rad, 1/m.
    """
    range_1K = positions_K3[..., 2].unsqueeze(-2)
    phase_NK, slopes = _phase_slopes(positions_K3, elements_N3, wavelength_m=wavelength_m)
    azimuth_NK, elevation_NK, bent_NK = slopes
    return _turned(phase_NK, (range_1K * azimuth_NK, range_1K * elevation_NK, bent_NK))


def _phase_slopes(
    positions_K3: Tensor, elements_N3: Tensor, *, wavelength_m: float
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Phases of `steering`, and their derivatives by azimuth and elevation over r, and by r."""
    azimuth_1K, elevation_1K, range_1K = positions_K3.unsqueeze(-3).unbind(-1)
    y_N1, z_N1 = elements_N3[:, 1:2], elements_N3[:, 2:3]
    sin_1K, cos_1K = elevation_1K.sin(), elevation_1K.cos()
    side_1K, front_1K = azimuth_1K.sin(), azimuth_1K.cos()
    along_NK = torch.addcmul(y_N1 * (cos_1K * side_1K), z_N1, sin_1K)
    across_NK = y_N1 * (cos_1K * front_1K)
    up_NK = torch.addcmul(z_N1 * cos_1K, y_N1, sin_1K * side_1K, value=-1)
    square_N1 = elements_N3.square().sum(-1, keepdim=True)
    # As in `steering_phase`.
    cross_NK = torch.addcmul(square_N1, along_NK, -2 * range_1K)
    distance_NK = (range_1K.square() + cross_NK).sqrt()
    sum_NK, wave = distance_NK + range_1K, -2 * pi / wavelength_m
    # The form (r − q·u)/ρ − 1 would leave three digits of float64 at 10⁶ apertures.
    bent_NK = (along_NK.square() - square_N1) / (sum_NK - along_NK)
    scale_NK = wave / distance_NK
    slopes = (-scale_NK * across_NK, -scale_NK * up_NK, scale_NK * bent_NK)
    return cross_NK / sum_NK * wave, slopes


def _turned(phase_NK: Tensor, slopes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Steering vectors and their derivatives, j times the slopes of the phases times the vectors.

    The derivatives are one after the other in memory: (3, …, N, K).
    """
    real_NK, imag_NK = phase_NK.cos(), phase_NK.sin()
    slopes_3NK = torch.stack(tuple(slopes))
    turned_3NK = torch.complex(-slopes_3NK * imag_NK, slopes_3NK * real_NK)
    return torch.complex(real_NK, imag_NK), turned_3NK.movedim(0, -1)


def as_positions(places_X3: Tensor) -> Tensor:
    """Positions of places, by range instead of its reciprocal; the function is its own inverse."""
    return torch.cat((places_X3[..., :2], places_X3[..., 2:].reciprocal()), dim=-1)


def place_derivatives(
    places_K3: Tensor, elements_N3: Tensor, *, wavelength_m: float
) -> tuple[Tensor, Tensor]:
    """Steering vectors and derivatives by azimuth, elevation and 1/r, with ∂/∂(1/r) = −r² ∂/∂r."""
    positions_K3 = as_positions(places_K3)
    range_1K = positions_K3[..., 2].unsqueeze(-2)
    phase_NK, slopes = _phase_slopes(positions_K3, elements_N3, wavelength_m=wavelength_m)
    azimuth_NK, elevation_NK, bent_NK = slopes
    by_bend_NK = -range_1K.square() * bent_NK
    return _turned(phase_NK, (range_1K * azimuth_NK, range_1K * elevation_NK, by_bend_NK))
