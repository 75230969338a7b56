"""Tokens of a scene's codes: whitened sample covariances, embedded by code and by wall.

    S̃_l = C_l^(−1/2) S_l C_l^(−H/2),   C_l ∝ (1−ν) Φ_l E[a aᴴ] Φ_lᴴ + ν I

C_l is what the prior expects under code l, so a token is of order one whatever the wall. C_l and
its Cholesky factor stay in fp32; all learned products run under autocast.

A token is the sum of two embeddings. The first is a matrix of its own for each code: on one wall
for all scenes nothing else learns as fast. The second sees the wall: learned beams b_w, at first
steering vectors of a grid, respond under code l as d_lw = C_l^(−1/2) Φ_l b_w, and the token holds
the quadratic forms d_lwᴴ S̃_l d_lw. It carries over to walls that were never seen.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; X the M² reals of a
Hermitian M×M matrix; F = X + 1 features; G beams; W width; 2M, 2N real and imaginary parts.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.linalg.gram import trace
from models.linalg.hermitian import pack_hermitian
from models.ris.estimators.posterior import candidate_steering, position_grid
from models.ris.scene.geometry import ArrayConfig

# ν, the share of noise in the power that a base station expects: 1/4 at 5 dB, near the middle of
# −5…20 dB.
_NOISE_SHARE = 0.25
# The grid of the prior mean E[a aᴴ]: three cells a half beamwidth integrate it to 3e-3.
_PRIOR_OVERSAMPLING = 3.0
# A code without power gives log 1e-3 and not −∞.
_LEAST_POWER = 1e-3


class Whitened(NamedTuple):
    """Inputs of the embeddings, fp32.

    Attributes:
        features_BLF: Packed S̃_l over the root of its trace, and the log of the trace.
        traceless_BLMM: S̃_l without its trace, over the root of the trace; complex64.
        sensing_BLMN: C_l^(−1/2) Φ_l; complex64.
    """

    features_BLF: Tensor
    traceless_BLMM: Tensor
    sensing_BLMN: Tensor


class PriorWhitener(nn.Module):
    """Whiten sample covariances by the covariance that the prior expects; without parameters."""

    prior_NN: Tensor

    def __init__(self, config: ArrayConfig) -> None:
        super().__init__()
        grid = position_grid(config, oversampling=_PRIOR_OVERSAMPLING)
        steering_NG = candidate_steering(grid.positions_G3, config)
        prior_NN = steering_NG @ steering_NG.mH / steering_NG.shape[1]
        self.register_buffer("prior_NN", prior_NN, persistent=False)

    def forward(self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor) -> Whitened:
        m = sample_BLMM.shape[-1]
        sensing_BLMN = channel_BMN.unsqueeze(1) * codes_BLN.unsqueeze(2) / sqrt(codes_BLN.shape[-1])
        expected_BLMM = sensing_BLMN @ self.prior_NN @ sensing_BLMN.mH
        power_B = trace(expected_BLMM).mean(-1)
        eye_MM = torch.eye(m, dtype=expected_BLMM.dtype, device=expected_BLMM.device)
        expected_BLMM = (1 - _NOISE_SHARE) * expected_BLMM / power_B[:, None, None, None]
        # `_ex` raises no exception for a wall that is not finite: the guard judges its outputs.
        chol_BLMM = torch.linalg.cholesky_ex(expected_BLMM + _NOISE_SHARE / m * eye_MM).L
        white_BLMM = torch.linalg.solve_triangular(
            chol_BLMM, eye_MM.expand_as(chol_BLMM), upper=False
        )
        seen_BLMM = white_BLMM @ sample_BLMM @ white_BLMM.mH
        power_BL1 = trace(seen_BLMM).unsqueeze(-1) / m
        # Divided by its root the power keeps its sign of signal over noise, without its long tail.
        root_BL1 = (power_BL1 + _LEAST_POWER).sqrt()
        packed_BLX = pack_hermitian(seen_BLMM) / (sqrt(m) * root_BL1)
        features_BLF = torch.cat((packed_BLX, (power_BL1 + _LEAST_POWER).log()), -1)
        traceless_BLMM = seen_BLMM - power_BL1.unsqueeze(-1) * eye_MM
        traceless_BLMM = traceless_BLMM / (sqrt(m) * root_BL1.unsqueeze(-1))
        return Whitened(features_BLF, traceless_BLMM, white_BLMM @ sensing_BLMN)


class CodeEmbedding(nn.Module):
    """Embed every code's features, by a matrix of its own: features_BLF to tokens_BLW."""

    def __init__(self, codes: int, features: int, width: int) -> None:
        super().__init__()
        self.weight_LFW = nn.Parameter(torch.randn(codes, features, width) / sqrt(features))
        self.bias_LW = nn.Parameter(0.02 * torch.randn(codes, width))

    def forward(self, features_BLF: Tensor) -> Tensor:
        tokens_LBW = features_BLF.transpose(0, 1) @ self.weight_LFW
        return tokens_LBW.transpose(0, 1) + self.bias_LW


class BeamEmbedding(nn.Module):
    """Embed every code's responses to learned beams through the wall: tokens_BLW.

    f_lg = d_lgᴴ S̃_l d_lg / (‖d_lg‖² + mean ‖d‖²),  d_lg = C_l^(−1/2) Φ_l b_g
    """

    def __init__(self, config: ArrayConfig, width: int) -> None:
        super().__init__()
        beams_NG = candidate_steering(position_grid(config).positions_G3, config)
        self.beam_GX = nn.Parameter(_stacked(beams_NG).mT.contiguous())
        self.mix = nn.Linear(beams_NG.shape[1], width, bias=False)

    def forward(self, white: Whitened) -> Tensor:
        response_BLMG = _realified(white.sensing_BLMN) @ self.beam_GX.mT
        form_BLMM = _realified(white.traceless_BLMM)
        if len(response_BLMG) == 1:
            # One wall for all scenes: every code's response meets all scenes in one product.
            response_LMG = response_BLMG[0]
            b, l, m, _ = form_BLMM.shape
            rows_LXM = form_BLMM.transpose(0, 1).reshape(l, b * m, m)
            turned_BLMG = (rows_LXM @ response_LMG).view(l, b, m, -1).transpose(0, 1)
        else:
            turned_BLMG = form_BLMM @ response_BLMG
        power_BLG = response_BLMG.square().sum(-2)
        scale_BLG = power_BLG + power_BLG.mean((-2, -1), keepdim=True)
        gains_BLG = (turned_BLMG * response_BLMG).sum(-2) / scale_BLG
        tokens_BLW: Tensor = self.mix(gains_BLG)
        return tokens_BLW


def _stacked(matrix_NG: Tensor) -> Tensor:
    """Real parts above imaginary parts."""
    return torch.cat((matrix_NG.real, matrix_NG.imag), -2)


def _realified(matrix_MN: Tensor) -> Tensor:
    """Real matrix (…, 2M, 2N) that maps stacked vectors as the complex one maps vectors."""
    turned_MN = torch.cat((-matrix_MN.imag, matrix_MN.real), -2)
    return torch.cat((_stacked(matrix_MN), turned_MN), -1)
