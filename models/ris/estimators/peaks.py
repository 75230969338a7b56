"""Peaks of a pseudospectrum over (φ, θ, r): greedily on a grid, then refined between its points.

Border: from a score of steering vectors to positions; `pseudospectra` defines the scores.

Shapes: B scenes, N elements, G grid points, K sources at most, X points; 3 = azimuth in rad,
elevation in rad, and as a *place* the reciprocal range in 1/m, in which sources are uniform.
"""

from collections.abc import Callable
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor

from models.ris.scene.geometry import (
    ArrayConfig,
    as_positions,
    element_positions,
    place_derivatives,
    steering,
)

# A score maps steering vectors, (1 or B, N, X), to figures of every scene, (B, X): larger is
# likelier.
Score = Callable[[Tensor], Tensor]

# The grid steps by a quarter of the beamwidth 2/side in angle, and by 0.35 rad of wavefront
# curvature at the corner in 1/r. Halving both changes the mean error at the tiny size by less than
# its standard error.
_ANGLE_STEPS_PER_BEAM = 4
_CURVATURE_STEP_RAD = 0.35
# A round of refinement takes the best of a point and its 6 neighbours, then halves the step. The
# first step turns the steering vector by 0.3 rad, rms over the elements, as a grid step does; the
# tenth by 6e-4 rad.
_ROUNDS = 10
_FIRST_STEP = 0.3
# Two peaks whose steering vectors correlate by more (|aᴴa′|/N) count as one source. At the tiny
# size the error of MUSIC is least near 0.5; 0.7 admits shoulders of the first peak (+0.02).
EXCLUSION = 0.5


def find_peaks(score: Score, mask_BK: Tensor, config: ArrayConfig) -> Tensor:
    """Positions of the highest peaks of a score, one for each source that is present.

    On the grid, a further peak correlates with earlier ones by at most `EXCLUSION`. The refinement
    may bring two of them nearer.

    Args:
        score: Score of steering vectors, scene by scene.
        mask_BK: True for present sources, which come first; bool.
        config: The size.

    Returns:
        positions_BK3 by range in m, float32, highest first, NaN for absent sources.
    """
    places_G3, grid_NG = steered_grid(config, str(mask_BK.device))
    score_BG = score(grid_NG.unsqueeze(0))
    peaks: list[Tensor] = []
    for _ in range(mask_BK.shape[1]):
        peak_B = score_BG.argmax(-1)
        peaks.append(peak_B)
        if len(peaks) < mask_BK.shape[1]:
            correlation_BG = (grid_NG[:, peak_B].mH @ grid_NG).abs() / config.elements
            score_BG = score_BG.masked_fill(correlation_BG > EXCLUSION, -torch.inf)
    places_BK3 = _climb(score, places_G3[torch.stack(peaks, dim=1)], config)
    return as_positions(places_BK3).where(mask_BK.unsqueeze(-1), torch.nan)


def _climb(score: Score, places_BK3: Tensor, config: ArrayConfig) -> Tensor:
    """Climb from grid points to the nearest peaks, within the region of sources."""
    low_3, high_3 = region(config, device=places_BK3.device)
    eye_33 = torch.eye(3, device=places_BK3.device)
    neighbours_73 = torch.cat((torch.zeros_like(eye_33[:1]), eye_33, -eye_33))
    b, k, _ = places_BK3.shape
    for round_ in range(_ROUNDS):
        if round_ % (_ROUNDS // 2) == 0:
            axes_BK33 = _even_axes(places_BK3, config)
        offset_BK73 = _FIRST_STEP * 0.5**round_ * (neighbours_73 @ axes_BK33)
        places_BK73 = (places_BK3.unsqueeze(2) + offset_BK73).clamp(low_3, high_3)
        score_BX = score(steering_at(places_BK73.flatten(1, 2), config))
        best_BK = score_BX.view(b, k, 7).argmax(-1)
        index_BK13 = best_BK[..., None, None].expand(-1, -1, 1, 3)
        places_BK3 = places_BK73.gather(2, index_BK13).squeeze(2)
    return places_BK3


def _even_axes(places_BK3: Tensor, config: ArrayConfig) -> Tensor:
    """Axes, the rows of each 3×3, along which the steering vector turns equally and independently.

    G = Re Dᴴ P⊥(a) D / N,  D = ∂a/∂place;  axes = L⁻¹ with G = L Lᵀ

    For the surface, angle and range are correlated. Steps along the coordinates would stop in that
    valley: 0.038 m from a peak at 20 dB, in the median, instead of 0.026.
    """
    elements_N3 = element_positions(config, device=places_BK3.device)
    a_BNK, D_BNK3 = place_derivatives(places_BK3, elements_N3, wavelength_m=config.wavelength_m)
    along_BK3 = (a_BNK.conj().unsqueeze(-1) * D_BNK3).sum(1) / config.elements
    across_BNK3 = D_BNK3 - a_BNK.unsqueeze(-1) * along_BK3.unsqueeze(1)
    across_BKN3 = across_BNK3.transpose(1, 2)
    metric_BK33 = (across_BKN3.mH @ across_BKN3).real / config.elements
    # The wavefront hardly bends at the far corner: a load of 1e-6 of the angles' keeps L regular.
    load_BK1 = 1e-6 * metric_BK33.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
    chol_BK33, _ = torch.linalg.cholesky_ex(
        metric_BK33 + torch.diag_embed(load_BK1.expand(along_BK3.shape))
    )
    eye_33 = torch.eye(3, device=places_BK3.device)
    axes_BK33: Tensor = torch.linalg.solve_triangular(
        chol_BK33, eye_33.expand_as(chol_BK33), upper=False
    )
    return axes_BK33


def steering_at(places_X3: Tensor, config: ArrayConfig) -> Tensor:
    """Steering vectors (…, N, X) at places."""
    elements_N3 = element_positions(config, device=places_X3.device)
    return steering(as_positions(places_X3), elements_N3, wavelength_m=config.wavelength_m)


def region(config: ArrayConfig, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Corners of the region of sources, as places."""
    azimuth_rad, elevation_rad = config.azimuth_max_rad, config.elevation_max_rad
    low_3 = torch.tensor((-azimuth_rad, -elevation_rad, 1 / config.range_max_m), device=device)
    high_3 = torch.tensor((azimuth_rad, elevation_rad, 1 / config.range_min_m), device=device)
    return low_3, high_3


@lru_cache(maxsize=1)
def steered_grid(config: ArrayConfig, device: str) -> tuple[Tensor, Tensor]:
    """Places of the grid, and the steering vectors (N, G) there.

    They take 0.7 MB at the tiny size, 20 MB at the full one.
    """
    # The first caller may be in inference mode, whose tensors cannot be used elsewhere.
    with torch.inference_mode(False), torch.no_grad():
        places_G3 = _grid(config, device=torch.device(device))
        return places_G3, steering_at(places_G3, config)


def _grid(config: ArrayConfig, *, device: torch.device) -> Tensor:
    """Grid points (G, 3) over the region."""
    low_3, high_3 = region(config, device=device)
    # The wavefront's phase at the corner is (π/λ) (D/2)² / r.
    curvature_rad_m = torch.pi / config.wavelength_m * (config.aperture_m / 2) ** 2
    angle_step_rad = 2 / config.side / _ANGLE_STEPS_PER_BEAM
    wanted = (angle_step_rad, angle_step_rad, _CURVATURE_STEP_RAD / curvature_rad_m)
    widths = (high_3 - low_3).tolist()
    counts = [ceil(width / step) + 1 for width, step in zip(widths, wanted, strict=True)]
    axes = [
        torch.linspace(float(low), float(high), count, device=device)
        for low, high, count in zip(low_3, high_3, counts, strict=True)
    ]
    return torch.cartesian_prod(*axes)
