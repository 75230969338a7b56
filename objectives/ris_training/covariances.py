"""Covariances that are validated: the network's, and its blend with ridge matching.

Shapes: B scenes, N elements, R rank of F.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ris.network.losses import covariance_error
from models.ris.scene.scenes import Scenes
from models.ris.truth.metric import factor_subspace_error, subspace_error

_BLENDS = (0.0, 0.05, 0.1, 0.2)


def full_covariance(factor_BNR: Tensor, noise_B: Tensor) -> Tensor:
    """F Fᴴ + s I, complex64, Hermitian."""
    n = factor_BNR.shape[-2]
    eye_NN = torch.eye(n, dtype=factor_BNR.dtype, device=factor_BNR.device)
    return factor_BNR @ factor_BNR.mH + noise_B[:, None, None] * eye_NN


def blend_covariances(predicted_BNN: Tensor, ridge_BNN: Tensor, blend: float) -> Tensor:
    """(1−β) R_pred + β R_ridge, complex64, Hermitian."""
    return (1 - blend) * predicted_BNN + blend * ridge_BNN


def best_blend(factor_BNR: Tensor, noise_B: Tensor, ridge_BNN: Tensor, scenes: Scenes) -> float:
    """The β of least mean ε on scenes that have no other purpose."""
    errors = {
        blend: float(hybrid_subspace_error(factor_BNR, noise_B, ridge_BNN, scenes, blend).mean())
        for blend in _BLENDS
    }
    return min(errors, key=errors.__getitem__)


def hybrid_subspace_error(
    factor_BNR: Tensor, noise_B: Tensor, ridge_BNN: Tensor, scenes: Scenes, blend: float
) -> Tensor:
    """ε of the hybrid covariance; without the ridge it needs no N×N decomposition."""
    if not blend:
        return factor_subspace_error(factor_BNR, scenes)
    predicted_BNN = full_covariance(factor_BNR, noise_B)
    return subspace_error(blend_covariances(predicted_BNN, ridge_BNN, blend), scenes)


def hybrid_distance(
    factor_BNR: Tensor, noise_B: Tensor, ridge_BNN: Tensor, scenes: Scenes, blend: float
) -> Tensor:
    """`normalised_error` of the hybrid covariance, without the ridge from Gram matrices."""
    if not blend:
        label_BNK = scenes.factor_BNK
        return covariance_error(factor_BNR, noise_B, label_BNK, torch.zeros_like(noise_B))
    predicted_BNN = full_covariance(factor_BNR, noise_B)
    return normalised_error(blend_covariances(predicted_BNN, ridge_BNN, blend), scenes)


def normalised_error(estimate_BNN: Tensor, scenes: Scenes) -> Tensor:
    """‖R̂ − A P Aᴴ‖² / ‖A P Aᴴ‖² of each scene, real."""
    label_BNN = scenes.factor_BNK @ scenes.factor_BNK.mH
    energy_B = label_BNN.abs().square().sum((-2, -1))
    return (estimate_BNN - label_BNN).abs().square().sum((-2, -1)) / energy_B
