"""Scenes behind a reconfigurable intelligent surface: sources, snapshots, labels.

    y_lt = Φ_l A s_lt + n_lt,   Φ_l = H diag(c_l) / √N,   s ~ CN(0, diag p),   n ~ CN(0, σ² I)

Users of scenes import this module alone: it re-exports geometry, installations and streams.

Shapes: B scenes (or 1 where all scenes share it), N elements, M antennas, L codes, T snapshots a
code, K sources (absent ones zero), 3 = azimuth in rad, elevation in rad, range in m.
"""

from dataclasses import dataclass, fields, replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from models.ris.scene.geometry import SIZES, ArrayConfig, direction, element_positions, steering
from models.ris.scene.installation import Installation, draw_installation, uniform
from models.ris.scene.streams import Stream, stream_generator, stream_seed

__all__ = [
    "MAX_CORRELATION",
    "NOISE_FLOOR",
    "SIZES",
    "ArrayConfig",
    "Installation",
    "Scenes",
    "Stream",
    "direction",
    "draw_installation",
    "draw_scenes",
    "element_positions",
    "observe",
    "steering",
    "stream_generator",
    "stream_seed",
]

# A label has at least this noise power: otherwise its negative log-likelihood, of rank K, would be
# unbounded below.
NOISE_FLOOR = 1e-3
# Two sources of one scene correlate by |a₁ᴴa₂|/N <= 0.95. Above, the weaker direction holds under
# (1 − 0.95)/2 = 2.5 % of the label: no estimator could find it, and the metric would count noise.
# Plain independent draws exceed it in 0.3 % (base, full) to 1.5 % (unit) of the scenes with two or
# more sources, so a scene draws 3 layouts and takes the first that fits: 1 in 3e5 (unit) to 1 in
# 4e7 has none and keeps its first. A rejection loop would synchronise the device.
MAX_CORRELATION = 0.95
_CANDIDATES = 3


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes: the base station's measurements, and the truth.

    Attributes:
        installation: H and the codes.
        snapshots_BLMT: y, complex64, in the label's units.
        sample_BLMM: S_l = mean_t y yᴴ, scaled by its trace averaged over l; complex64.
        steering_BNK: A, complex64, zero columns for absent sources.
        powers_BK: p, float32, 0 for absent sources, sum 1, so that trace(A P Aᴴ) = N.
        positions_BK3: float32, azimuth in rad, elevation in rad, range in m; NaN for absent.
        source_mask_BK: bool; present sources come first.
        noise_B: t = max(σ², 1e-3), float32, in the label's units.
        snr_db_B: float32, mean_l E‖Φ_l A s‖² / (M σ²) in dB; exact also below the floor of t.
    """

    installation: Installation
    snapshots_BLMT: Tensor
    sample_BLMM: Tensor
    steering_BNK: Tensor
    powers_BK: Tensor
    positions_BK3: Tensor
    source_mask_BK: Tensor
    noise_B: Tensor
    snr_db_B: Tensor

    @property
    def factor_BNK(self) -> Tensor:
        """A √P, complex64: the label is R = factor factorᴴ, of trace N."""
        return self.steering_BNK * self.powers_BK.sqrt().unsqueeze(-2)

    def __len__(self) -> int:
        return self.snapshots_BLMT.shape[0]

    def to(self, device: torch.device | str) -> "Scenes":
        """Return the same scenes on a device."""
        changes: dict[str, Any] = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        return replace(self, **changes)

    def blinded(self) -> "Scenes":
        """Return the scenes as an estimator may see them: the truth is NaN, except for counts."""
        truth = ("steering_BNK", "powers_BK", "positions_BK3", "noise_B", "snr_db_B")
        changes: dict[str, Any] = {
            name: torch.full_like(getattr(self, name), torch.nan) for name in truth
        }
        return replace(self, **changes)

    def select(self, index: slice | Tensor) -> "Scenes":
        """Return some of the scenes, in the order of the index."""
        changes: dict[str, Any] = {f.name: getattr(self, f.name)[index] for f in fields(self)[1:]}
        return replace(self, installation=self.installation.select(index), **changes)


def draw_scenes(
    config: ArrayConfig,
    n: int,
    generator: torch.Generator,
    *,
    installation: Installation | None = None,
    device: torch.device | str | None = None,
) -> Scenes:
    """Draw scenes: sources, fresh symbols, noise, and the label.

    The number of sources is uniform in 1…K; powers are scaled to sum 1 (label of trace N), and
    σ² = mean_l ‖Φ_l A √P‖² / (M · SNR) with the SNR uniform in dB.

    Args:
        config: The size.
        n: Number of scenes. A draw is a function of the generator's state and of n.
        generator: Source of all randomness; the draw happens on its device.
        installation: The wall that all scenes share, or one wall a scene, on the generator's
            device. None draws a new installation for every scene.
        device: Device of the result. Default: the generator's.
    """
    where, M = generator.device, config.antennas
    if installation is None:
        installation = draw_installation(config, generator, batch=n)
    mask_BK, powers_BK = _draw_powers(config, n, generator)
    positions_BK3, steering_BNK = _draw_positions(config, mask_BK, generator)

    factor_BNK = steering_BNK * powers_BK.sqrt().unsqueeze(-2)
    seen_BLMK = observe(installation, factor_BNK)
    gain_B = seen_BLMK.abs().square().sum((-2, -1)).mean(-1) / M
    snr_db_B = uniform((n,), config.snr_min_db, config.snr_max_db, generator=generator)
    sigma2_B = gain_B * 10 ** (-snr_db_B / 10)
    shape = (n, config.codes, config.max_sources + M, config.snapshots)
    white_BLXT = torch.randn(shape, dtype=torch.complex64, generator=generator, device=where)
    noise_BLMT, symbols_BLKT = white_BLXT[:, :, :M], white_BLXT[:, :, M:]
    snapshots_BLMT = seen_BLMK @ symbols_BLKT + sigma2_B.sqrt()[:, None, None, None] * noise_BLMT

    scenes = Scenes(
        installation=installation,
        snapshots_BLMT=snapshots_BLMT,
        sample_BLMM=scaled_sample_covariance(snapshots_BLMT),
        steering_BNK=steering_BNK,
        powers_BK=powers_BK,
        positions_BK3=positions_BK3.where(mask_BK.unsqueeze(-1), torch.nan),
        source_mask_BK=mask_BK,
        noise_B=sigma2_B.clamp_min(NOISE_FLOOR),
        snr_db_B=snr_db_B,
    )
    return scenes if device is None else scenes.to(device)


def scaled_sample_covariance(snapshots_BLMT: Tensor) -> Tensor:
    """Sample covariance under each code, scaled by its trace averaged over the codes.

    S_l = Y_l Y_lᴴ / mean_l tr(Y_l Y_lᴴ)

    Returns:
        sample_BLMM, complex64, Hermitian, dimensionless; mean_l tr S_l = 1.
    """
    power_B = torch.view_as_real(snapshots_BLMT).square().sum((-3, -2, -1)).mean(-1)
    # The quotient of the product, which has more numbers, would take three times as long.
    scaled_BLMT = snapshots_BLMT * power_B.rsqrt()[:, None, None, None]
    return scaled_BLMT @ scaled_BLMT.mH


def observe(installation: Installation, factor_BNK: Tensor) -> Tensor:
    """Φ_l X, of shape BLMK, without a Φ in memory for every scene (295 kB each at full size)."""
    B, N, K = factor_BNK.shape
    if len(installation) == 1:
        sensing_XN = installation.sensing_BLMN[0].flatten(0, 1)
        seen_XBK = sensing_XN @ factor_BNK.transpose(0, 1).reshape(N, B * K)
        L, M = installation.codes_BLN.shape[1], installation.channel_BMN.shape[1]
        return seen_XBK.view(L, M, B, K).permute(2, 0, 1, 3)
    coded_BLNK = installation.codes_BLN.unsqueeze(-1) * factor_BNK.unsqueeze(1)
    return installation.channel_BMN.unsqueeze(1) @ coded_BLNK / sqrt(N)


def _draw_powers(config: ArrayConfig, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Presence (B, K) of 1…K sources, those present first, and their powers (B, K) of sum 1."""
    where, K = generator.device, config.max_sources
    count_B1 = torch.randint(1, K + 1, (n, 1), generator=generator, device=where)
    mask_BK = torch.arange(K, device=where) < count_B1
    spread_db = config.power_spread_db
    power_db_BK = uniform((n, K), -spread_db, spread_db, generator=generator)
    power_BK = 10 ** (power_db_BK / 10) * mask_BK
    return mask_BK, power_BK / power_BK.sum(-1, keepdim=True)


def _draw_positions(
    config: ArrayConfig, mask_BK: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Positions (B, K, 3) of resolvable sources and their steering vectors (B, N, K).

    A scene takes the first of C candidate layouts whose sources correlate by at most
    MAX_CORRELATION.
    """
    where, (n, K) = generator.device, mask_BK.shape
    low_3 = (-config.azimuth_max_rad, -config.elevation_max_rad, 1 / config.range_max_m)
    high_3 = (config.azimuth_max_rad, config.elevation_max_rad, 1 / config.range_min_m)
    low, high = torch.tensor((low_3, high_3), device=where)
    unit_BCK3 = torch.rand(n, _CANDIDATES, K, 3, generator=generator, device=where)
    positions_BCK3 = low + (high - low) * unit_BCK3
    positions_BCK3[..., 2].reciprocal_()

    elements_N3 = element_positions(config, device=where)

    def steer(positions_K3: Tensor) -> Tensor:
        return steering(positions_K3, elements_N3, wavelength_m=config.wavelength_m)

    positions_BK3 = positions_BCK3[:, 0].contiguous()
    steering_BNK = steer(positions_BK3)
    # On the CPU the few scenes whose first layout does not fit are looked up. Elsewhere that would
    # wait for the device, and all scenes try all layouts.
    again_X = torch.arange(n, device=where)
    if where.type == "cpu":
        again_X = _is_close(steering_BNK, mask_BK).nonzero().squeeze(-1)
    if len(again_X):
        steering_XCNK = steer(positions_BCK3[again_X])
        is_close_XC = _is_close(steering_XCNK, mask_BK[again_X].unsqueeze(1))
        # argmin gives the first False, and 0 where all are True.
        first_X = is_close_XC.int().argmin(-1)
        positions_BK3[again_X] = positions_BCK3[again_X, first_X]
        steering_BNK[again_X] = steering_XCNK[torch.arange(len(again_X), device=where), first_X]
    return positions_BK3, steering_BNK * mask_BK.unsqueeze(-2)


def _is_close(steering_NK: Tensor, mask_K: Tensor) -> Tensor:
    """Whether two sources that are present correlate by more than MAX_CORRELATION, (…)."""
    elements = steering_NK.shape[-2]
    correlation_KK = (steering_NK.mH @ steering_NK).abs() / elements
    pair_KK = (mask_K.unsqueeze(-1) & mask_K.unsqueeze(-2)).triu(diagonal=1)
    return ((correlation_KK > MAX_CORRELATION) & pair_KK).any(-1).any(-1)
