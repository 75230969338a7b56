"""MUSIC: source positions from each code's own sample covariance, or from an estimate of R.

With T = 1 snapshot a code the sample covariance has rank one, so that its signal subspace is the
snapshot itself, also for K > 1 sources; the noise subspaces of L codes together still point to
the sources. With T >= K it is MUSIC as in the textbooks, and hard to beat.

Shapes: B scenes (sensing: or 1), N elements, M antennas, L codes, D signal dimensions, K sources,
G grid points, X points, 3 = azimuth in rad, elevation in rad, range in m (`place`: 1/range).
"""

from functools import lru_cache
from math import ceil

import torch
from torch import Tensor

from models.array import ArrayConfig, Scenes, element_positions, steering

# Grid: a quarter of the beamwidth 2/side in angle; 0.35 rad of wavefront curvature at the corner
# in 1/r. Halving both changes the mean error at the tiny size by less than its standard error.
_ANGLE_STEPS_PER_BEAM = 4
_CURVATURE_STEP_RAD = 0.35
# Refinement: the best of a point and its 6 neighbours, from half a grid step, shrinking by 0.65.
# Ten rounds end at 1/100 of a grid step and can walk 1.4 steps. All 26 neighbours cost 4 times as
# much for the same mean error (0.225, tiny).
_ROUNDS = 10
_SHRINK = 0.65
_CHUNK_BYTES = 64e6  # of the largest intermediate; with its temporaries under 300 MB


def music_per_code(scenes: Scenes, config: ArrayConfig, *, exclusion: float = 0.5) -> Tensor:
    """Positions at the peaks of the MUSIC spectrum averaged over the codes ([1], incoherent).

    f(p) = (1/L) Σ_l ‖U_lᴴ Φ_l a(p)‖² / ‖Φ_l a(p)‖²  =  1 − mean null spectrum

    U_l: the min(K, T, M − 1) dominant eigenvectors of S_l. Peaks are taken greedily on a grid in
    (φ, θ, 1/r) and refined; a further peak must correlate with those before by less than
    `exclusion` (|aᴴa′|/N).

    Args:
        scenes: Read are the samples, the installation, and the number of sources; not the truth.
        config: The size.
        exclusion: Largest correlation of a peak with those found before it. Near 0.5 (tiny) the
            error is least; 0.7 lets shoulders of the first peak pass for sources (+0.02).

    Returns:
        positions_BK3, float32, strongest first, NaN for absent sources.

    References:
        [1] R. O. Schmidt, "Multiple emitter location and signal parameter estimation," IEEE
        Trans. Antennas Propag., vol. 34, no. 3, pp. 276-280, Mar. 1986, eq. (6).
    """
    places_G3, steps_3 = _grid(config, device=scenes.sample_BLMM.device)
    L, M = config.codes, config.antennas
    dimensions = min(config.max_sources, config.snapshots, M - 1)
    rows = dimensions if len(scenes.installation) == 1 else dimensions + 2 * M
    chunk = max(1, int(_CHUNK_BYTES / (8 * L * rows * len(places_G3))))
    found = [
        _find(scenes.select(slice(i, i + chunk)), config, places_G3, steps_3, exclusion=exclusion)
        for i in range(0, len(scenes), chunk)
    ]
    return torch.cat(found)


def music_of_factor(
    factor_BNR: Tensor, mask_BK: Tensor, config: ArrayConfig, *, exclusion: float = 0.5
) -> Tensor:
    """Positions at the peaks of the MUSIC spectrum of R̂ = FFᴴ + sI, a covariance of the elements.

    f(p) = ‖Uᴴ a(p)‖² / N,   U = F W Λ^(−1/2): the K dominant eigenvectors, from FᴴF = W Λ Wᴴ

    Peaks are taken greedily on the grid and refined together: made to be looked at while a network
    trains, in a third of the time of `music_per_code`, to 1/100 of a grid step.

    Args:
        factor_BNR: F, complex64, finite, of rank R >= K columns.
        mask_BK: How many sources there are, as the first ones of K; bool.
        exclusion: As in `music_per_code`.

    Returns:
        positions_BK3, float32, strongest first, NaN for absent sources.
    """
    most = mask_BK.shape[1]
    values_BR, vectors_BRR = torch.linalg.eigh(factor_BNR.mH @ factor_BNR)
    scale_BK = values_BR[:, -most:].clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
    signal_BNK = factor_BNR @ (vectors_BRR[..., -most:] * scale_BK.unsqueeze(1))
    # One code, by which the elements themselves are heard.
    signal_BLND = (signal_BNK.flip(-1) * mask_BK.unsqueeze(1)).unsqueeze(1)
    places_G3, steps_3, grid_NG = _steered_grid(config, str(factor_BNR.device))
    spectrum_BG = _spectrum(signal_BLND, grid_NG[None, None])
    peaks: list[Tensor] = []
    for _ in range(most):
        peak_B = spectrum_BG.argmax(-1)
        peaks.append(peak_B)
        correlation_BG = (grid_NG[:, peak_B].mH @ grid_NG).abs() / config.elements
        spectrum_BG = spectrum_BG.masked_fill(correlation_BG > exclusion, -1)
    place_X3 = places_G3[torch.stack(peaks, dim=1)].flatten(0, 1)
    signal_XLND = signal_BLND.repeat_interleave(most, 0)
    # Half a step, a quarter, …: they walk a step and end at 1/128 of one.
    place_X3 = _refine(place_X3, steps_3, signal_XLND, None, config, rounds=7, shrink=0.5)
    positions_BK3 = place_X3.view(*mask_BK.shape, 3)
    positions_BK3[..., 2].reciprocal_()
    return positions_BK3.where(mask_BK.unsqueeze(-1), torch.nan)


def _find(
    scenes: Scenes, config: ArrayConfig, places_G3: Tensor, steps_3: Tensor, *, exclusion: float
) -> Tensor:
    signal_BLMD = _signal_subspaces(scenes, config)
    sensing_BLMN = scenes.installation.sensing_BLMN
    grid_NG = _steering_at(places_G3, config)
    spectrum_BG = _spectrum(signal_BLMD, _heard(grid_NG[None], sensing_BLMN))
    places = []
    for _ in range(config.max_sources):
        place_B3 = places_G3[spectrum_BG.argmax(-1)]
        place_B3 = _refine(place_B3, steps_3, signal_BLMD, sensing_BLMN, config)
        places.append(place_B3)
        found_BN = _steering_at(place_B3.unsqueeze(1), config).squeeze(-1)
        correlation_BG = (found_BN.conj() @ grid_NG).abs() / config.elements
        spectrum_BG = spectrum_BG.masked_fill(correlation_BG > exclusion, -1)
    positions_BK3 = torch.stack(places, dim=1)
    positions_BK3[..., 2].reciprocal_()
    return positions_BK3.where(scenes.source_mask_BK.unsqueeze(-1), torch.nan)


def _refine(
    place_B3: Tensor,
    steps_3: Tensor,
    signal_BLMD: Tensor,
    sensing_BLMN: Tensor | None,
    config: ArrayConfig,
    *,
    rounds: int = _ROUNDS,
    shrink: float = _SHRINK,
) -> Tensor:
    """Climb the spectrum from a grid point, within the region that sources come from."""
    low_3, high_3 = _region(config, device=place_B3.device)
    eye_33 = torch.eye(3, device=place_B3.device)
    neighbours_X3 = torch.cat((torch.zeros_like(eye_33[:1]), eye_33, -eye_33))
    scene_B = torch.arange(len(place_B3), device=place_B3.device)
    for round_ in range(rounds):
        offset_X3 = neighbours_X3 * steps_3 * (0.5 * shrink**round_)
        places_BX3 = (place_B3.unsqueeze(1) + offset_X3).clamp(low_3, high_3)
        beams_BLMX = _heard(_steering_at(places_BX3, config), sensing_BLMN)
        place_B3 = places_BX3[scene_B, _spectrum(signal_BLMD, beams_BLMX).argmax(-1)]
    return place_B3


def _heard(steering_BNX: Tensor, sensing_BLMN: Tensor | None) -> Tensor:
    """Φ_l a of steering vectors, (B, L, M, X); B may be 1."""
    if sensing_BLMN is None:
        return steering_BNX.unsqueeze(1)
    return torch.einsum("blmn,bnx->blmx", sensing_BLMN, steering_BNX)


def _signal_subspaces(scenes: Scenes, config: ArrayConfig) -> Tensor:
    """U_l, (B, L, M, D): the min(K, T, M − 1) dominant eigenvectors, zeros beyond."""
    dimensions = min(config.max_sources, config.snapshots, config.antennas - 1)
    vectors_BLMM: Tensor = torch.linalg.eigh(scenes.sample_BLMM).eigenvectors
    dominant_BLMD = vectors_BLMM[..., -dimensions:].flip(-1)
    return dominant_BLMD * scenes.source_mask_BK[:, None, None, :dimensions]


def _spectrum(signal_BLMD: Tensor, beams_BLMX: Tensor) -> Tensor:
    """mean_l ‖U_lᴴ b_l‖² / ‖b_l‖², (B, X) in [0, 1]; beams may be shared by all scenes."""
    match_BLDX = torch.einsum("blmd,blmx->bldx", signal_BLMD.conj(), beams_BLMX)
    power_BLX = beams_BLMX.abs().square().sum(-2)
    spectrum_BX: Tensor = (match_BLDX.abs().square().sum(-2) / power_BLX).mean(-2)
    return spectrum_BX


def _steering_at(places_X3: Tensor, config: ArrayConfig) -> Tensor:
    """Steering vectors (…, N, X) at places with 1/range as third coordinate."""
    positions_X3 = torch.cat((places_X3[..., :2], places_X3[..., 2:].reciprocal()), dim=-1)
    elements_N3 = element_positions(config, device=places_X3.device)
    return steering(positions_X3, elements_N3, wavelength_m=config.wavelength_m)


def _region(config: ArrayConfig, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Corners of the region of sources in (φ, θ, 1/r)."""
    azimuth_rad, elevation_rad = config.azimuth_max_rad, config.elevation_max_rad
    low_3 = torch.tensor((-azimuth_rad, -elevation_rad, 1 / config.range_max_m), device=device)
    high_3 = torch.tensor((azimuth_rad, elevation_rad, 1 / config.range_min_m), device=device)
    return low_3, high_3


@lru_cache(maxsize=1)
def _steered_grid(config: ArrayConfig, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """The grid, the steps, and the steering vectors (N, G) at its points: 0.7 MB (tiny)."""
    # Whoever asks first may be in inference mode, whose tensors are of use nowhere else.
    with torch.inference_mode(False), torch.no_grad():
        places_G3, steps_3 = _grid(config, device=torch.device(device))
        return places_G3, steps_3, _steering_at(places_G3, config)


def _grid(config: ArrayConfig, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Grid points (G, 3) over the region, and the steps (3,) between them."""
    low_3, high_3 = _region(config, device=device)
    # Phase at the corner: (π/λ) (D/2)² / r.
    curvature_rad_m = torch.pi / config.wavelength_m * (config.aperture_m / 2) ** 2
    angle_step_rad = 2 / config.side / _ANGLE_STEPS_PER_BEAM
    wanted = (angle_step_rad, angle_step_rad, _CURVATURE_STEP_RAD / curvature_rad_m)
    widths = (high_3 - low_3).tolist()
    counts = [ceil(width / step) + 1 for width, step in zip(widths, wanted, strict=True)]
    axes = [
        torch.linspace(float(low), float(high), count, device=device)
        for low, high, count in zip(low_3, high_3, counts, strict=True)
    ]
    intervals_3 = torch.tensor([max(count - 1, 1) for count in counts], device=device)
    return torch.cartesian_prod(*axes), (high_3 - low_3) / intervals_3
