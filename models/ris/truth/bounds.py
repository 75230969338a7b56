"""Cramér-Rao bounds: the least error that any unbiased estimator of the positions can have.

They need the truth, as `metric` does. They are computed in float64, without autograd, in chunks of
scenes.

Shapes: B scenes, N elements, L codes, M antennas, T snapshots a code, K sources (absent ones
masked); X = 3K positions, source-major φ₁ θ₁ r₁ φ₂ … in rad, rad, m; Y any parameters.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from models.ris.scene.scenes import ArrayConfig, Scenes
from models.ris.truth.fisher import (
    deterministic_information,
    each_coordinate,
    gram,
    kept_coordinates,
    residual,
    steering_and_derivatives,
    stochastic_information,
)

__all__ = [
    "bound_deviations",
    "deterministic_bound",
    "efficient_errors_m",
    "position_bound_m",
    "stochastic_bound",
    "subspace_floor",
]

_CHUNK_BYTES = 64e6  # a chunk of scenes takes this much, and under 300 MB with temporaries
# A Fisher information of unit diagonal whose eigenvalues spread further has lost all but four
# digits of its inverse (float64 carries 16): it counts as singular.
_LEAST_EIGENVALUE = 1e-12


def stochastic_bound(scenes: Scenes, config: ArrayConfig) -> Tensor:
    """Bound on the positions for Gaussian symbols of unknown powers, the model of the scenes.

    It is the positions' block of J⁻¹, with J the information of positions, powers and σ²
    (`fisher`). σ² = mean_l ‖Φ_l A √P‖² / (M · SNR), without the floor of the scenes' `noise_B`. T
    is the scenes'.

    This model knows that sources do not correlate and that a power is the same under all codes; the
    deterministic model does not. So this bound may lie below `deterministic_bound`, and is finite
    where M <= K ([2]). With one code and one source it never lies below ([1]).

    Args:
        scenes: The truth; of the snapshots only their number counts.
        config: The size.

    Returns:
        bound_BXX, float64, symmetric, in products of rad, rad and m. NaN for absent sources; inf on
        the diagonal and 0 elsewhere for scenes that do not identify all their parameters.

    References:
        [1] P. Stoica and A. Nehorai, "Performance study of conditional and unconditional
            direction-of-arrival estimation," IEEE Trans. Acoust., Speech, Signal Process.,
            vol. 38, no. 10, pp. 1783-1795, Oct. 1990, doi:10.1109/29.60109.
        [2] M. Jansson, B. Göransson, and B. Ottersten, "A subspace method for direction of
            arrival estimation of uncorrelated emitter signals," IEEE Trans. Signal Process.,
            vol. 47, no. 4, pp. 945-956, Apr. 1999.
    """
    kept_BZ = torch.cat((kept_coordinates(scenes), scenes.source_mask_BK), dim=-1)
    kept_BY = torch.cat((kept_BZ, torch.ones_like(kept_BZ[:, :1])), dim=-1)
    bounds = [
        _inverse(stochastic_information(scenes.select(part), config), kept_BY[part])
        for part in _parts(scenes)
    ]
    positions = slice(3 * scenes.powers_BK.shape[1])
    return torch.cat(bounds)[:, positions, positions]


def deterministic_bound(
    scenes: Scenes, config: ArrayConfig, symbols_BLKT: Tensor | None = None
) -> Tensor:
    """Bound on the positions with every symbol as a separate unknown.

    (σ²/2) [Σ_l Re{(Dᴴ Φ_lᴴ P⊥(Φ_lA) Φ_l D) ∘ (Σ_lᵀ ⊗ 1_{3×3})}]⁻¹,   Σ_l = Σ_t s sᴴ

    Args:
        scenes: The truth; σ² as in `stochastic_bound`.
        config: The size.
        symbols_BLKT: s, complex, powers included; those of absent sources are ignored. None takes
            the expectation Σ_l = T diag(p).

    Returns:
        bound_BXX as in `stochastic_bound`. Where a scene has M sources or more, P⊥ = 0 and the
        symbols explain any snapshot: inf on the diagonal.
    """
    bounds = []
    for part in _parts(scenes):
        symbols = None if symbols_BLKT is None else symbols_BLKT[part]
        chunk = scenes.select(part)
        information_BXX = deterministic_information(chunk, config, symbols)
        bounds.append(_inverse(information_BXX, kept_coordinates(chunk)))
    return torch.cat(bounds)


def bound_deviations(bound_BXX: Tensor) -> Tensor:
    """Least standard deviations of the positions: square roots of the bound's diagonal.

    Returns:
        deviations_BK3, float64, in rad, rad, m; NaN for absent sources.
    """
    return bound_BXX.diagonal(dim1=-2, dim2=-1).sqrt().reshape(len(bound_BXX), -1, 3)


def position_bound_m(bound_BXX: Tensor, scenes: Scenes) -> Tensor:
    """Least root mean squared Euclidean error of each source.

    E|δp|² = (r cos θ)² var φ + r² var θ + var r

    because the columns of ∂(r u)/∂(φ, θ, r) are orthogonal, of lengths r cos θ, r and 1.

    Returns:
        error_BK, float64, in m; NaN for absent sources.
    """
    return (bound_deviations(bound_BXX) * _lengths(scenes)).square().sum(-1).sqrt()


def efficient_errors_m(
    bound_BXX: Tensor, scenes: Scenes, *, draws: int, generator: torch.Generator
) -> Tensor:
    """Random Euclidean errors of an efficient method: normal, with the bound's covariance.

    Their root mean square is `position_bound_m`; their median is comparable with the median error
    of a method.

    Args:
        bound_BXX: Bound from `stochastic_bound` or `deterministic_bound`.
        scenes: The truth.
        draws: D, number of draws for each source.
        generator: Source of the draws, on the CPU.

    Returns:
        error_BKD, float64, in m; NaN for absent sources, inf where the bound is infinite.
    """
    B, K = scenes.powers_BK.shape
    lengths_BK3 = _lengths(scenes)
    # Each source's own 3×3 block is taken to Cartesian coordinates turned to the source.
    block_BK33 = bound_BXX.reshape(B, K, 3, K, 3).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    block_BK33 = block_BK33 * lengths_BK3.unsqueeze(-1) * lengths_BK3.unsqueeze(-2)
    is_known_BK11 = block_BK33.isfinite().flatten(2).all(-1)[..., None, None]
    values_BK3 = torch.linalg.eigvalsh(block_BK33.where(is_known_BK11, 0)).clamp(min=0)
    normal_BKD3 = torch.randn(B, K, draws, 3, dtype=torch.float64, generator=generator)
    error_BKD = (normal_BKD3.to(values_BK3) * values_BK3.sqrt().unsqueeze(2)).square().sum(-1)
    unknown_BK1 = position_bound_m(bound_BXX, scenes).unsqueeze(-1)
    return torch.where(is_known_BK11[..., 0], error_BKD.sqrt(), unknown_BK1)


def subspace_floor(bound_BXX: Tensor, scenes: Scenes, config: ArrayConfig) -> Tensor:
    """Least mean of `subspace_error`, to first order in the errors of the positions.

    ε = (1/K) Σ_kk' [(AᴴA)⁻¹]_k'k Σ_ij [D_kᴴ P⊥(A) D_k']_ij C_(k,i),(k',j)

    This is E tr{(AᴴA)⁻¹ δAᴴ P⊥(A) δA} / K with δA = D δη and C = E δη δηᵀ.

    Args:
        bound_BXX: C, from `stochastic_bound` or `deterministic_bound`.
        scenes: The truth.
        config: The size.

    Returns:
        error_B, float64, >= 0. Above 1, which no subspace error exceeds, the bound is too wide for
        first order to hold.
    """
    floors = []
    for part in _parts(scenes):
        chunk = scenes.select(part)
        mask_BK, kept_BX = chunk.source_mask_BK, kept_coordinates(chunk)
        A_BNK, D_BNX = steering_and_derivatives(chunk, config)
        gram_BKK = A_BNK.mH @ A_BNK + torch.diag_embed((~mask_BK).double())
        weight_BXX = each_coordinate(torch.linalg.inv(gram_BKK).mT)
        weight_BXX = weight_BXX * gram(residual(D_BNX, A_BNK, mask_BK))
        # The product takes real parts: a complex factor would turn an infinite bound into NaN.
        floor_BXX = weight_BXX.real * bound_BXX[part]
        is_kept_BXX = kept_BX.unsqueeze(-1) & kept_BX.unsqueeze(-2)
        floors.append(floor_BXX.where(is_kept_BXX, 0).sum((-2, -1)) / mask_BK.sum(-1))
    return torch.cat(floors)


def _lengths(scenes: Scenes) -> Tensor:
    """Lengths of the columns of ∂(r u)/∂(φ, θ, r), BK3: r cos θ, r, 1."""
    _, elevation_BK, range_BK = scenes.positions_BK3.double().unbind(-1)
    return torch.stack((range_BK * elevation_BK.cos(), range_BK, torch.ones_like(range_BK)), dim=-1)


def _parts(scenes: Scenes) -> Iterator[slice]:
    """Slices of scenes whose sensing matrices, columns and Grams fit in `_CHUNK_BYTES`."""
    L, N = scenes.installation.codes_BLN.shape[1:]
    M, Z = scenes.installation.channel_BMN.shape[1], 4 * scenes.powers_BK.shape[1]
    chunk = max(1, int(_CHUNK_BYTES / (16 * L * (M * N + 6 * M * Z + 6 * Z * Z))))
    return (slice(start, start + chunk) for start in range(0, len(scenes), chunk))


def _inverse(information_BYY: Tensor, kept_BY: Tensor) -> Tensor:
    """J⁻¹ of the parameters kept, NaN for the others; inf on the diagonal where J is singular."""
    diagonal_BY = information_BYY.diagonal(dim1=-2, dim2=-1)
    # J is scaled to a unit diagonal: rad, m and powers differ by many orders of magnitude.
    scale_BY = diagonal_BY.rsqrt().where(diagonal_BY > 0, 1.0)
    scale_BYY = scale_BY.unsqueeze(-1) * scale_BY.unsqueeze(-2)
    unit_BYY = information_BYY * scale_BYY + torch.diag_embed((~kept_BY).double())
    values_BY, vectors_BYY = torch.linalg.eigh(unit_BYY)
    inverse_BYY = (vectors_BYY / values_BY.unsqueeze(-2)) @ vectors_BYY.mT * scale_BYY
    is_singular_B = values_BY[:, 0] <= _LEAST_EIGENVALUE * values_BY[:, -1]
    unknown_BYY = torch.diag_embed(torch.full_like(values_BY, torch.inf))
    inverse_BYY = torch.where(is_singular_B[:, None, None], unknown_BYY, inverse_BYY)
    return inverse_BYY.where(kept_BY.unsqueeze(-1) & kept_BY.unsqueeze(-2), torch.nan)
