"""Covariances that are validated: the network's, and its blend with ridge matching.

Shapes: B scenes, N elements, R rank of F.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ris.scene.scenes import Scenes
from models.ris.truth.metric import subspace_error

_BLENDS = (0.0, 0.05, 0.1, 0.2)


def full_covariance(factor_BNR: Tensor, noise_B: Tensor) -> Tensor:
    """F Fᴴ + s I, complex64, Hermitian."""
    n = factor_BNR.shape[-2]
    eye_NN = torch.eye(n, dtype=factor_BNR.dtype, device=factor_BNR.device)
    return factor_BNR @ factor_BNR.mH + noise_B[:, None, None] * eye_NN


def blend_covariances(predicted_BNN: Tensor, ridge_BNN: Tensor, blend: float) -> Tensor:
    """(1−β) R_pred + β R_ridge, complex64, Hermitian."""
    return (1 - blend) * predicted_BNN + blend * ridge_BNN


def best_blend(predicted_BNN: Tensor, ridge_BNN: Tensor, scenes: Scenes) -> float:
    """The β of least mean ε on scenes that have no other purpose."""
    errors = {
        blend: float(
            subspace_error(blend_covariances(predicted_BNN, ridge_BNN, blend), scenes).mean()
        )
        for blend in _BLENDS
    }
    return min(errors, key=errors.__getitem__)


def normalised_error(estimate_BNN: Tensor, scenes: Scenes) -> Tensor:
    """‖R̂ − A P Aᴴ‖² / ‖A P Aᴴ‖² of each scene, real."""
    label_BNN = scenes.factor_BNK @ scenes.factor_BNK.mH
    energy_B = label_BNN.abs().square().sum((-2, -1))
    return (estimate_BNN - label_BNN).abs().square().sum((-2, -1)) / energy_B
