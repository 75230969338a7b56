"""How good an estimate is: the part that knows the truth, kept away from the estimators.

Shapes: B scenes, N elements, K most sources of a scene (absent ones masked), R rank of a factor,
3 = azimuth in rad, elevation in rad, range in m.
"""

from math import log10

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.array import ArrayConfig, Scenes, direction, element_positions, steering

# A mean error below this is rounding of float32; it keeps J finite (J >= -69 dB).
_LEAST_ERROR = torch.finfo(torch.float32).eps


def subspace_error(covariance_BNN: Tensor, scenes: Scenes) -> Tensor:
    """Part of the true steering span that the dominant eigenvectors of an estimate miss.

    ε = 1 − ‖Qᴴ U_K‖²_F / K

    Q: orthonormal basis of span(A); U_K: eigenvectors of the K largest eigenvalues, K the true
    number of sources of each scene. A random subspace scores 1 − K/N.

    Args:
        covariance_BNN: Hermitian estimates, complex; their scale is free, they may be indefinite.
        scenes: The truth.

    Returns:
        error_B, float32 in [0, 1]; NaN where the estimate is not finite.
    """
    is_finite_B = torch.isfinite(covariance_BNN).all(-1).all(-1)
    # LAPACK raises on one NaN and takes the whole batch with it.
    safe_BNN = covariance_BNN.where(is_finite_B[:, None, None], 0)
    vectors_BNN = _eigenvectors(safe_BNN)
    dominant_BNK = vectors_BNN[..., -scenes.source_mask_BK.shape[1] :].flip(-1)
    return _basis_error(dominant_BNK, scenes).where(is_finite_B, torch.nan)


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
    is_finite_B = torch.isfinite(factor_BNR).all(-1).all(-1)
    safe_BNR = factor_BNR.where(is_finite_B[:, None, None], 0)
    values_BR, vectors_BRR = torch.linalg.eigh(safe_BNR.mH @ safe_BNR)
    most = scenes.source_mask_BK.shape[1]
    values_BK = values_BR[:, -most:].flip(-1)
    # Eigenvalues of a float32 Gram err by 2⁻²³ of the largest; a direction below is none.
    floor_B1 = values_BK[:, :1] * 1e-6 + torch.finfo(torch.float32).tiny
    scale_BK = values_BK.clamp_min(floor_B1).rsqrt() * (values_BK > floor_B1)
    dominant_BNK = safe_BNR @ vectors_BRR[..., -most:].flip(-1) * scale_BK.unsqueeze(-2)
    return _basis_error(dominant_BNK, scenes).where(is_finite_B, torch.nan)


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
    # Householder QR: the first k columns of Q span the first k columns, whatever follows.
    Q_BNK: Tensor = torch.linalg.qr(kept_BNK).Q
    return Q_BNK * mask_BK.unsqueeze(-2)


def _eigenvectors(covariance_BNN: Tensor) -> Tensor:
    """Eigenvectors by ascending eigenvalue; 0.11 s for 1,000 of 36×36 on one CPU thread."""
    vectors_BNN: Tensor = torch.linalg.eigh(covariance_BNN).eigenvectors
    if vectors_BNN.device.type == "cuda":
        # pytorch#192483: cu126 wheels can return, silently, vectors that are not orthonormal.
        eye_NN = torch.eye(vectors_BNN.shape[-1], device=vectors_BNN.device)
        if (vectors_BNN.mH @ vectors_BNN - eye_NN).abs().max() > 1e-3:
            vectors_BNN = torch.linalg.eigh(covariance_BNN.cpu()).eigenvectors
            vectors_BNN = vectors_BNN.to(covariance_BNN.device)
    return vectors_BNN
