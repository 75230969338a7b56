"""The network: greedy maximum likelihood, unrolled, with a learned correction at every source.

For one source after the other: the concentrated likelihood of a further source at each point of a
grid, those before projected out; a trunk corrects it; a softmax makes a distribution over the grid,
whose mean steering vector is a column of F. A last head adds what the grid cannot say.

The likelihood spectra are physics, computed in fp32 whatever autocast says: at 20 dB they need
1 − f to 1e-3, below fp16's step at 1. The trunk and the heads follow autocast. H and the codes are
inputs: no weight knows them.

Shapes: B scenes, N elements, M antennas, L codes, K sources at most, R rank of F, G grid points,
W width; X real numbers of a Hermitian M×M matrix, real and imaginary parts of all M² entries.
"""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.geometry import ArrayConfig, element_positions, steering

# Label noise is never below 1e-3 (`array.NOISE_FLOOR`), so neither is the estimate.
_LEAST_NOISE = 1e-3
# A spectrum is −log(1 − f); f is held below 1 − 3e-3, some 25 dB of signal over noise.
_LEAST_RESIDUAL = 3e-3
# L·M log-likelihood units would be 64 at the tiny size; a flatter start learns faster.
_FIRST_SHARPNESS = 20.0


class Outputs(NamedTuple):
    """What the forward gives; `covariance_factor` makes F and s of it in fp32."""

    column_BNK: Tensor
    rest_BNR2: Tensor
    noise_B: Tensor


class RisCovarianceNet(nn.Module):
    """Scaled sample covariances, codes and channel → the parts of F and the noise power.

    Args:
        config: The size.
        width: Of the trunk.
        layers: Residual blocks of the trunk, for each source anew.
        rank: R >= K, columns of F.
        oversampling: Grid points by half a beamwidth: 2·side·o in azimuth, side·o in elevation.
        ranges: Grid points in range, uniform in 1/r.
        dropout: In the trunk.

    Raises:
        ValueError: The rank cannot hold the size's sources.
    """

    grid_NG: Tensor

    def __init__(
        self,
        config: ArrayConfig,
        *,
        width: int = 64,
        layers: int = 2,
        rank: int = 3,
        oversampling: float = 1.0,
        ranges: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if rank < config.max_sources:
            raise ValueError(f"rank {rank} cannot hold {config.max_sources} sources")
        self._sources, self._rank = config.max_sources, rank
        grid_NG = _grid_steering(config, oversampling=oversampling, ranges=ranges)
        self.register_buffer("grid_NG", grid_NG, persistent=False)
        points, slots = grid_NG.shape[1], range(config.max_sources)
        self.inputs = nn.ModuleList(nn.Linear(2 * points, width) for _ in slots)
        # From the second source on the trunk remembers what it made of the first.
        self.memory = nn.ModuleList(nn.Linear(width, width) for _ in slots[1:])
        self.trunks = nn.ModuleList(
            nn.Sequential(*(_Block(width, dropout) for _ in range(layers))) for _ in slots
        )
        self.norm = nn.LayerNorm(width)
        self.head = _Head(config, points=points, width=width, rank=rank)

    def forward(self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor) -> Outputs:
        """One factor a scene.

        Args:
            sample_BLMM: S_l, complex64, as `Scenes.sample_BLMM`.
            codes_BLN: c_l, complex64; leading dimension 1 or B.
            channel_BMN: H, complex64; leading dimension 1 or B.
        """
        spectra = _Spectra(sample_BLMM, codes_BLN, channel_BMN, self.grid_NG)
        columns: list[Tensor] = []
        state_BW = torch.zeros((), device=sample_BLMM.device)
        for k in range(self._sources):
            power_BG, alike_BG = spectra.without(columns)
            entered_BW = self.inputs[k](torch.cat((power_BG - 1, 2 * alike_BG - 1), -1))
            remembered_BW = self.memory[k - 1](state_BW) if k else state_BW
            state_BW = self.trunks[k](entered_BW + remembered_BW)
            columns.append(self.head.column(k, self.norm(state_BW), power_BG, self.grid_NG))
        rest = self.head.rest(self.norm(state_BW))
        rest_BNR2 = rest[:, 1:].reshape(len(rest), -1, self._rank, 2)
        return Outputs(torch.stack(columns, -1), rest_BNR2, rest[:, 0])


def covariance_factor(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """F (B, N, R), complex64, and s (B,), at least 1e-3: R = F Fᴴ + s I in the label's units."""
    column_BNK, rest_BNR2, noise_B = outputs
    rest_BNR = torch.view_as_complex(rest_BNR2.contiguous())
    missing = rest_BNR.shape[-1] - column_BNK.shape[-1]
    factor_BNR = rest_BNR + nn.functional.pad(column_BNK, (0, missing))
    # softplus(−2) = .13, about the mean noise of the label's units.
    return factor_BNR, _LEAST_NOISE + softplus(noise_B - 2)


class _Head(nn.Module):
    """From the trunk's state to the columns of F, the rest of it, and the noise."""

    def __init__(self, config: ArrayConfig, *, points: int, width: int, rank: int) -> None:
        super().__init__()
        sources = config.max_sources
        self.sharpness_K = nn.Parameter(torch.full((sources,), log(_FIRST_SHARPNESS)))
        self.sources = nn.ModuleList(nn.Linear(width, points + 1) for _ in range(sources))
        self.rest = nn.Linear(width, 2 * config.elements * rank + 1)
        for linear in (*self.sources, self.rest):
            # Start from plain greedy likelihood.
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)

    def column(self, k: int, state_BW: Tensor, power_BG: Tensor, grid_NG: Tensor) -> Tensor:
        """Column of source k: the mean steering vector over the grid, scaled; complex64 (B, N)."""
        said = self.sources[k](state_BW)
        with torch.autocast(said.device.type, enabled=False):
            said = said.float()
            logits_BG = said[:, 1:] + self.sharpness_K[k].exp() * power_BG
            share_BG = logits_BG.softmax(-1) * said[:, :1].exp()
            return torch.complex(share_BG @ grid_NG.real.mT, share_BG @ grid_NG.imag.mT)


class _Block(nn.Module):
    """x + W₂ gelu(W₁ norm(x))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, x_BW: Tensor) -> Tensor:
        return x_BW + torch.as_tensor(self.change(x_BW))


class _Spectra:
    """Likelihood of a further source at each grid point, those found before projected out.

    With P the projector off the sources before, b = Φ_l a, S_l of trace w_l and Σ w_l = 1,

    f = Σ_l bᴴ P S_l P b / (bᴴ P b)  over  Σ_l tr(P S_l P)

    is the share of the residual power that a point explains; −log(1 − f) is its log-likelihood for
    deterministic symbols, up to a factor. The second spectrum weighs all codes alike, as MUSIC.
    """

    def __init__(
        self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor, grid_NG: Tensor
    ) -> None:
        with torch.autocast(sample_BLMM.device.type, enabled=False):
            self._sensing_BLMN = channel_BMN.unsqueeze(1) * codes_BLN.unsqueeze(2)
            power_BL = _trace(sample_BLMM)
            # Each code to trace 1; what it weighs is kept beside.
            self._sample_BLMM = sample_BLMM / power_BL.clamp(min=1e-9)[..., None, None]
            power_BL = power_BL / power_BL.sum(-1, keepdim=True)
            alike_BL = torch.full_like(power_BL, 1 / power_BL.shape[-1])
            self._weight_B2L = torch.stack((power_BL, alike_BL), 1)
            beam_BLMG = self._sensing_BLMN @ grid_NG
            self._gain_BLG = beam_BLMG.abs().square().sum(-2)
            outer_BLXG = (beam_BLMG.conj().unsqueeze(3) * beam_BLMG.unsqueeze(2)).flatten(2, 3)
            # Re(z w) as one real product: [Re z, Im z]·[Re w, −Im w].
            self._outer_BLXG = torch.cat((outer_BLXG.real, -outer_BLXG.imag), 2)

    def without(self, columns: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Spectra (B, G), by power and with all codes alike, the columns' sources projected out."""
        with torch.no_grad(), torch.autocast(self._sample_BLMM.device.type, enabled=False):
            sample_BLMM, gain_BLG = self._sample_BLMM, self._gain_BLG
            if columns:
                projector_BLMM = self._projector(columns)
                sample_BLMM = projector_BLMM @ sample_BLMM @ projector_BLMM
                gain_BLG = self._form(projector_BLMM)
            # 1e-3 of the gain: a point that the projector has taken away explains nothing.
            share_BLG = self._form(sample_BLMM) / (gain_BLG + 1e-3 * self._gain_BLG)
            explained_B2G = self._weight_B2L @ share_BLG
            left_B21 = self._weight_B2L @ _trace(sample_BLMM).unsqueeze(-1)
            # 1e-3 of all power: where nothing is left, nothing is explained.
            spectrum_B2G = 1 - explained_B2G / (left_B21 + 1e-3)
            spectrum_B2G = -spectrum_B2G.clamp(min=_LEAST_RESIDUAL).log()
            power_BG, alike_BG = spectrum_B2G.unbind(1)
            return power_BG, alike_BG

    def _projector(self, columns: list[Tensor]) -> Tensor:
        """The projector off the columns' images under each code, by Gram-Schmidt."""
        sample_BLMM = self._sample_BLMM
        eye_MM = torch.eye(
            sample_BLMM.shape[-1], dtype=sample_BLMM.dtype, device=sample_BLMM.device
        )
        projector_BLMM = eye_MM.expand_as(sample_BLMM)
        for column_BN in columns:
            image_BLM1 = _unit(self._sensing_BLMN @ column_BN[:, None, :, None])
            image_BLM1 = _unit(projector_BLMM @ image_BLM1)
            projector_BLMM = projector_BLMM - image_BLM1 @ image_BLM1.mH
        return projector_BLMM

    def _form(self, hermitian_BLMM: Tensor) -> Tensor:
        """bᴴ X_l b of every code and grid point, real (B, L, G)."""
        flat_BLX = hermitian_BLMM.flatten(2)
        real_BLX = torch.cat((flat_BLX.real, flat_BLX.imag), -1)
        if len(self._outer_BLXG) == 1:
            # One wall: a product a code over all scenes, instead of one a scene and code.
            return (real_BLX.transpose(0, 1) @ self._outer_BLXG[0]).transpose(0, 1)
        return (real_BLX.unsqueeze(2) @ self._outer_BLXG).squeeze(2)


def _unit(vector_BLM1: Tensor) -> Tensor:
    """The vector at norm 1; 1e-12 keeps a vanishing one, and its gradient, finite."""
    energy_BL11 = (vector_BLM1.real.square() + vector_BLM1.imag.square()).sum(-2, keepdim=True)
    return vector_BLM1 * (energy_BL11 + 1e-12).rsqrt()


def _trace(matrix_BLMM: Tensor) -> Tensor:
    return matrix_BLMM.diagonal(dim1=-2, dim2=-1).real.sum(-1)


def _grid_steering(config: ArrayConfig, *, oversampling: float, ranges: int) -> Tensor:
    """Steering vectors (N, G) at the centres of cells, uniform in azimuth, elevation and 1/r."""
    near, far = 1 / config.range_min_m, 1 / config.range_max_m
    azimuth_P = config.azimuth_max_rad * _centres(round(2 * config.side * oversampling))
    elevation_P = config.elevation_max_rad * _centres(round(config.side * oversampling))
    inverse_P = (near + far) / 2 + (near - far) / 2 * _centres(ranges)
    places = torch.meshgrid(azimuth_P, elevation_P, 1 / inverse_P, indexing="ij")
    positions_G3 = torch.stack(places, -1).flatten(0, 2)
    return steering(positions_G3, element_positions(config), wavelength_m=config.wavelength_m)


def _centres(count: int) -> Tensor:
    """The centres of `count` equal cells of [−1, 1]."""
    return (2 * torch.arange(max(1, count)) + 1) / max(1, count) - 1
