"""Pseudospectra over positions by Bartlett, MVDR and MUSIC, and their peaks.

There are two families: of the antennas' samples under each code, and of an estimate of the
elements' covariance. With T = 1 snapshot per code the sample covariance has rank one: its signal
subspace is the snapshot itself, also for K > 1 sources. The noise subspaces of L codes together
still point to the sources. With T >= K this is textbook MUSIC, and hard to beat.

The inputs are samples, installation, and the number of sources; nothing else of the truth is used.

Shapes: B scenes (sensing: or 1), N elements, M antennas, L codes, D signal dimensions, K sources,
R rank of a factor, X points.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from models.linalg.dominant import dominant_of_covariance, dominant_of_factor
from models.ris.estimators.peaks import Score, find_peaks
from models.ris.scene.geometry import ArrayConfig, element_positions, steering
from models.ris.scene.scenes import Scenes

# The largest intermediate takes this much: 64 MB gave peaks of 1.4 GB, and took twice the time.
_CHUNK_BYTES = 8e6
# MVDR loads the diagonal by this much of an antenna's mean power: without it a sample covariance of
# rank one has no inverse. Mean errors at the tiny size are flat from 0.03 to 0.3.
_LOADING = 0.1


def bartlett_per_code(scenes: Scenes, config: ArrayConfig) -> Tensor:
    """Positions at the peaks of the beamformer's power ([1], eq. 24), averaged over the codes.

    f(p) = mean_l b_lᴴ S_l b_l / ‖b_l‖²,   b_l = Φ_l a(p)

    Each code is normalised separately: Σ_l b_lᴴ S_l b_l / Σ_l ‖b_l‖² favours positions that codes
    happen to focus on, and has its peak elsewhere even for one source without noise.

    Args:
        scenes: Only samples, installation and the number of sources are read, not the truth.
        config: The size.

    Returns:
        positions_BK3, float32, strongest first, NaN for absent sources.

    References:
        [1] H. Krim, M. Viberg, "Two decades of array signal processing research," IEEE Signal
        Process. Mag., vol. 13, no. 4, pp. 67-94, Jul. 1996.
    """

    def combine(match_BLDX: Tensor, power_BLX: Tensor, values_BLD: Tensor) -> Tensor:
        return ((values_BLD.unsqueeze(-1) * match_BLDX).sum(2) / power_BLX).mean(1)

    return _peaks_per_code(scenes, config, combine)


def mvdr_per_code(scenes: Scenes, config: ArrayConfig) -> Tensor:
    """Positions at the peaks of the minimum-variance spectrum ([1]), averaged over the codes.

    f(p) = −mean_l b_lᴴ (S_l + δ I)⁻¹ b_l / ‖b_l‖²,   δ a tenth of an antenna's mean power

    Args:
        scenes: As in `bartlett_per_code`.
        config: The size.

    Returns:
        positions_BK3, float32, strongest first, NaN for absent sources.

    References:
        [1] J. Capon, "High-resolution frequency-wavenumber spectrum analysis," Proc. IEEE, vol. 57,
        no. 8, pp. 1408-1418, Aug. 1969.
    """

    def combine(match_BLDX: Tensor, power_BLX: Tensor, values_BLD: Tensor) -> Tensor:
        delta = _LOADING / config.antennas  # the samples' mean trace is 1
        gain_BLD = values_BLD / (values_BLD + delta)
        kept_BLX = power_BLX - (gain_BLD.unsqueeze(-1) * match_BLDX).sum(2)
        return -(kept_BLX / power_BLX).mean(1)

    return _peaks_per_code(scenes, config, combine)


def music_per_code(scenes: Scenes, config: ArrayConfig) -> Tensor:
    """Positions at the peaks of the MUSIC spectrum averaged over the codes ([1], incoherent).

    f(p) = (1/L) Σ_l ‖U_lᴴ b_l‖² / ‖b_l‖²  =  1 − mean null spectrum

    U_l: the min(K, T, M − 1) dominant eigenvectors of S_l.

    Args:
        scenes: As in `bartlett_per_code`.
        config: The size.

    Returns:
        positions_BK3, float32, strongest first, NaN for absent sources.

    References:
        [1] R. O. Schmidt, "Multiple emitter location and signal parameter estimation," IEEE
        Trans. Antennas Propag., vol. 34, no. 3, pp. 276-280, Mar. 1986, eq. (6).
    """

    def combine(match_BLDX: Tensor, power_BLX: Tensor, values_BLD: Tensor) -> Tensor:
        is_signal_BLD = (values_BLD > 0).to(match_BLDX)
        return ((is_signal_BLD.unsqueeze(-1) * match_BLDX).sum(2) / power_BLX).mean(1)

    most = min(config.max_sources, scenes.snapshots_BLMT.shape[-1], config.antennas - 1)
    return _peaks_per_code(scenes, config, combine, signal_dimensions=most)


def music_of_covariance(covariance_BNN: Tensor, mask_BK: Tensor, config: ArrayConfig) -> Tensor:
    """Positions at the peaks of the MUSIC spectrum of an estimate of the elements' covariance.

    f(p) = ‖U_Kᴴ a(p)‖² / N

    Args:
        covariance_BNN: Hermitian, complex, of any scale; may be indefinite.
        mask_BK: True for present sources, which come first; bool.
        config: The size.

    Returns:
        positions_BK3, float32, strongest first, NaN for absent sources.
    """
    return find_peaks(
        _score_of(_signal_of_covariance(covariance_BNN, mask_BK)),
        mask_BK,
        config,
    )


def music_of_factor(factor_BNR: Tensor, mask_BK: Tensor, config: ArrayConfig) -> Tensor:
    """Positions as by `music_of_covariance` for R̂ = FFᴴ + sI, without an N×N decomposition.

    U_K = F W_K Λ_K^(−1/2),   FᴴF = W Λ Wᴴ

    Args:
        factor_BNR: F, complex64, finite, of R >= K columns. Directions that it lacks add nothing.
        mask_BK: True for present sources, which come first; bool.
        config: The size.

    Returns:
        positions_BK3, float32, strongest first, NaN for absent sources.
    """
    return find_peaks(
        _score_of(_signal_of_factor(factor_BNR, mask_BK)),
        mask_BK,
        config,
    )


def covariance_spectrum(
    covariance_BNN: Tensor, mask_BK: Tensor, positions_G3: Tensor, config: ArrayConfig
) -> Tensor:
    """‖U_Kᴴ a‖²/N at given positions, BG in [0, 1]: the score of `music_of_covariance`."""
    return _spectrum(
        _signal_of_covariance(covariance_BNN, mask_BK),
        positions_G3,
        config,
    )


def factor_spectrum(
    factor_BNR: Tensor, mask_BK: Tensor, positions_G3: Tensor, config: ArrayConfig
) -> Tensor:
    """‖U_Kᴴ a‖²/N at given positions, BG in [0, 1]: the score of `music_of_factor`."""
    return _spectrum(_signal_of_factor(factor_BNR, mask_BK), positions_G3, config)


def _spectrum(signal_BNK: Tensor, positions_G3: Tensor, config: ArrayConfig) -> Tensor:
    elements_N3 = element_positions(config, device=positions_G3.device)
    a_NG = steering(positions_G3, elements_N3, wavelength_m=config.wavelength_m)
    spectrum_BG: Tensor = _score_of(signal_BNK)(a_NG.unsqueeze(0)) / config.elements
    return spectrum_BG


def _signal_of_covariance(covariance_BNN: Tensor, mask_BK: Tensor) -> Tensor:
    return _present(dominant_of_covariance(covariance_BNN, mask_BK.shape[1]), mask_BK)


def _signal_of_factor(factor_BNR: Tensor, mask_BK: Tensor) -> Tensor:
    return _present(dominant_of_factor(factor_BNR, mask_BK.shape[1]), mask_BK)


def _present(signal_BNK: Tensor, mask_BK: Tensor) -> Tensor:
    """Columns of present sources; zeros for absent ones and for non-finite numbers."""
    return torch.nan_to_num(signal_BNK.where(mask_BK.unsqueeze(1), 0))


def _score_of(signal_BNK: Tensor) -> Score:
    """Score ‖Uᴴ a‖² of steering vectors."""
    signal_BKN = signal_BNK.mH

    def score(steering_BNX: Tensor) -> Tensor:
        match_BKX = signal_BKN @ steering_BNX
        energy_BX: Tensor = (match_BKX.real.square() + match_BKX.imag.square()).sum(1)
        return energy_BX

    return score


# It maps |u_dᴴ b_l|² (B, L, D, X), ‖b_l‖² (B, L, X) and eigenvalues of S_l (B, L, D) to (B, X).
_Combine = Callable[[Tensor, Tensor, Tensor], Tensor]


def _peaks_per_code(
    scenes: Scenes,
    config: ArrayConfig,
    combine: _Combine,
    *,
    signal_dimensions: int | None = None,
) -> Tensor:
    """Peaks of a function of the eigenvectors of S_l and of the antennas' responses."""
    L, M, T = config.codes, config.antennas, scenes.snapshots_BLMT.shape[-1]
    dimensions = signal_dimensions or min(T, M)
    rows = dimensions if len(scenes.installation) == 1 else dimensions + 2 * M
    points = 3 * config.side**3  # the grid has about as many
    chunk = max(1, int(_CHUNK_BYTES / (8 * L * rows * points)))
    found = []
    for start in range(0, len(scenes), chunk):
        part = scenes.select(slice(start, start + chunk))
        values_BLM, vectors_BLMM = torch.linalg.eigh(part.sample_BLMM)
        values_BLD = values_BLM[..., -dimensions:].flip(-1).clamp(min=0)
        signal_BLMD = vectors_BLMM[..., -dimensions:].flip(-1)
        if signal_dimensions is not None:
            # A scene has no more signal dimensions than sources.
            values_BLD = values_BLD * part.source_mask_BK[:, None, :dimensions]
        score = _score_per_code(part, signal_BLMD, values_BLD, combine)
        found.append(find_peaks(score, part.source_mask_BK, config))
    return torch.cat(found)


def _score_per_code(
    scenes: Scenes, signal_BLMD: Tensor, values_BLD: Tensor, combine: _Combine
) -> Score:
    sensing_BLMN = scenes.installation.sensing_BLMN
    b, l, m, n = sensing_BLMN.shape

    def score(steering_BNX: Tensor) -> Tensor:
        heard_BYX = sensing_BLMN.reshape(b, l * m, n) @ steering_BNX
        heard_BLMX = heard_BYX.view(len(heard_BYX), l, m, -1)
        match_BLDX = signal_BLMD.mH @ heard_BLMX
        power_BLX = (heard_BLMX.real.square() + heard_BLMX.imag.square()).sum(2)
        return combine(match_BLDX.real.square() + match_BLDX.imag.square(), power_BLX, values_BLD)

    return score
