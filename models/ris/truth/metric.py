"""Errors of estimates against the truth, kept apart from the estimators, which must not see it.

Shapes: B scenes, N elements, K sources at most (absent ones masked), R rank of a factor,
3 = azimuth in rad, elevation in rad, range in m.
"""

from math import log10

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.linalg.dominant import dominant_of_covariance, dominant_of_factor
from models.ris.scene.scenes import ArrayConfig, Scenes, direction, element_positions, steering

# A mean error below this is rounding of float32; it keeps J finite (J >= -69 dB).
_LEAST_ERROR = torch.finfo(torch.float32).eps


def subspace_error(covariance_BNN: Tensor, scenes: Scenes) -> Tensor:
    """Fraction of the true steering span that the dominant eigenvectors of an estimate miss.

    ε = 1 − ‖Qᴴ U_K‖²_F / K

    Q: orthonormal basis of span(A); U_K: eigenvectors of the K largest eigenvalues, K the true
    number of sources of each scene. A random subspace scores 1 − K/N.

    Args:
        covariance_BNN: Hermitian estimates, complex; their scale is free, they may be indefinite.
        scenes: The truth.

    Returns:
        error_B, float32 in [0, 1]; NaN where the estimate is not finite.
    """
    return _basis_error(
        dominant_of_covariance(covariance_BNN, scenes.source_mask_BK.shape[1]), scenes
    )


def factor_subspace_error(factor_BNR: Tensor, scenes: Scenes) -> Tensor:
    """The error of `subspace_error` for R = FFᴴ (+ sI), without an N×N decomposition.

    G = FᴴF = WΛWᴴ,  U_K = F W_K Λ_K^(−1/2)

    Args:
        factor_BNR: F, complex, of rank R >= K columns.
        scenes: The truth.

    Returns:
        error_B, float32 in [0, 1]; NaN where the factor is not finite. Directions that F lacks
        count as missed.
    """
    return _basis_error(dominant_of_factor(factor_BNR, scenes.source_mask_BK.shape[1]), scenes)


def position_subspace_error(positions_BK3: Tensor, scenes: Scenes, config: ArrayConfig) -> Tensor:
    """The error ε of the span of the steering vectors at estimated positions.

    Args:
        positions_BK3: Estimates, sources in any order, absent ones NaN.
        scenes: The truth.
        config: The size.

    Returns:
        error_B, float32 in [0, 1].
    """
    elements_N3 = element_positions(config, device=positions_BK3.device)
    steering_BNK = steering(positions_BK3, elements_N3, wavelength_m=config.wavelength_m)
    return _basis_error(_span(steering_BNK, scenes.source_mask_BK), scenes)


def metric_db(error_B: Tensor, reference_B: Tensor) -> float:
    """The metric of a study: error relative to a reference estimator's, negative when better.

    J = 10 log₁₀(mean ε / mean ε_ref)

    Args:
        error_B: ε of the estimate, over the frozen validation set.
        reference_B: ε of ridge matching over the same scenes (0 dB).

    Returns:
        J in dB, >= -69 dB; NaN where an error is NaN.
    """
    mean = float(error_B.double().mean())
    reference = float(reference_B.double().mean())
    return 10 * log10(max(mean, _LEAST_ERROR) / reference) if mean == mean else mean


def position_error_m(positions_BK3: Tensor, scenes: Scenes) -> Tensor:
    """Euclidean errors of positions, after the assignment of least total error.

    Args:
        positions_BK3: Estimates in any order, one for each source that is present.
        scenes: The truth.

    Returns:
        error_BK in m, in the order of the true sources; NaN for absent ones.
    """
    return match_positions(positions_BK3, scenes)[1]


def match_positions(positions_BK3: Tensor, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Estimates in the order of the true sources, by the assignment of least total error.

    Returns:
        positions_BK3 in that order, and error_BK in m; NaN for absent sources.
    """
    found_BK3, true_BK3 = (
        (p[..., 2:] * direction(p[..., 0], p[..., 1])).cpu().double()
        for p in (positions_BK3, scenes.positions_BK3)
    )
    distance_BKK = torch.cdist(true_BK3, found_BK3)
    error_BK = torch.full(true_BK3.shape[:2], torch.nan, dtype=torch.float64)
    matched_BK3 = torch.full_like(positions_BK3, torch.nan)
    for scene, count in enumerate(scenes.source_mask_BK.sum(-1).tolist()):
        cost = distance_BKK[scene, :count, :count]
        row, column = linear_sum_assignment(cost.numpy())
        error_BK[scene, :count] = cost[row, column]
        matched_BK3[scene, :count] = positions_BK3[scene, :count][column]
    return matched_BK3, error_BK.float().to(positions_BK3.device)


def _basis_error(basis_BNK: Tensor, scenes: Scenes) -> Tensor:
    """1 − ‖Qᴴ U‖²/K over the columns that the mask keeps."""
    mask_BK = scenes.source_mask_BK
    true_BNK = _span(scenes.steering_BNK, mask_BK)
    overlap_BKK: Tensor = true_BNK.mH @ (basis_BNK * mask_BK.unsqueeze(-2))
    captured_B = overlap_BKK.abs().square().sum((-2, -1))
    return (1 - captured_B / mask_BK.sum(-1)).clamp(0, 1)


def _span(steering_BNK: Tensor, mask_BK: Tensor) -> Tensor:
    """Orthonormal basis of the columns present, which come first; zeros in place of the others."""
    kept_BNK = steering_BNK.where(mask_BK.unsqueeze(-2), 0)
    # In Householder QR the first k columns of Q span the first k columns, whatever follows.
    Q_BNK: Tensor = torch.linalg.qr(kept_BNK).Q
    return Q_BNK * mask_BK.unsqueeze(-2)
