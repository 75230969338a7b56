"""Fisher information of the snapshots of a scene about its sources, at the truth.

It is computed in float64 and complex128; `bounds` inverts it.

Shapes: B scenes, N elements, M antennas, L codes, T snapshots a code, K sources (absent ones come
last); X = 3K positions, source-major φ₁ θ₁ r₁ φ₂ … in rad, rad, m; Z = 4K: positions and powers;
Y = 4K + 1: these and σ².
"""

import torch
from torch import Tensor

from models.ris.scene.geometry import steering_derivatives
from models.ris.scene.scenes import ArrayConfig, Installation, Scenes, element_positions


def stochastic_information(scenes: Scenes, config: ArrayConfig) -> Tensor:
    """Fisher information of positions, powers and σ², for Gaussian symbols.

    J_ij = T Σ_l tr(R_l⁻¹ ∂_iR_l R_l⁻¹ ∂_jR_l),   R_l = Φ_l A P Aᴴ Φ_lᴴ + σ² I    ([1])

    A source's derivative is ∂_iR = x_i y_iᴴ + y_i x_iᴴ, with x = p Φ_l ∂a, y = Φ_l a for a position
    and x = Φ_l a, y = x/2 for a power; so with W = R⁻¹

    tr(W ∂_iR W ∂_jR) = 2 Re{yᵢᴴW xⱼ yⱼᴴW xᵢ + yᵢᴴW yⱼ xⱼᴴW xᵢ},   tr(W ∂_iR W) = 2 Re yᵢᴴW² xᵢ

    Returns:
        J_BYY, float64, in the inverse units of the parameters; zero for absent sources.

    References:
        [1] S. M. Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory,"
            Prentice Hall, 1993, eq. (15.52).
    """
    V_BLMK, D_BLMX, sigma2_B = _observe(scenes, config)
    powers_BK = scenes.powers_BK.double()
    eye_MM = torch.eye(V_BLMK.shape[-2], device=V_BLMK.device)
    R_BLMM = (V_BLMK * powers_BK[:, None, None]) @ V_BLMK.mH
    R_BLMM = R_BLMM + sigma2_B[:, None, None, None] * eye_MM
    W_BLMM = torch.cholesky_inverse(torch.linalg.cholesky(R_BLMM))
    x_BLMZ = torch.cat((D_BLMX * powers_BK.repeat_interleave(3, -1)[:, None, None], V_BLMK), -1)
    y_BLMZ = torch.cat((V_BLMK.repeat_interleave(3, -1), V_BLMK / 2), -1)
    Wx_BLMZ, Wy_BLMZ = W_BLMM @ x_BLMZ, W_BLMM @ y_BLMZ

    yx_BLZZ = y_BLMZ.mH @ Wx_BLMZ
    crossed_BLZZ = yx_BLZZ * yx_BLZZ.mT + (y_BLMZ.mH @ Wy_BLMZ) * (x_BLMZ.mH @ Wx_BLMZ).mT
    J_BZZ = 2 * crossed_BLZZ.real.sum(1)
    noise_BZ1 = 2 * (Wy_BLMZ.conj() * Wx_BLMZ).real.sum((1, 2)).unsqueeze(-1)
    noise_B11 = W_BLMM.abs().square().sum((1, 2, 3))[:, None, None]
    upper_BZY = torch.cat((J_BZZ, noise_BZ1), dim=-1)
    lower_B1Y = torch.cat((noise_BZ1.mT, noise_B11), dim=-1)
    return scenes.snapshots_BLMT.shape[-1] * torch.cat((upper_BZY, lower_B1Y), dim=-2)


def deterministic_information(
    scenes: Scenes, config: ArrayConfig, symbols_BLKT: Tensor | None
) -> Tensor:
    """Fisher information of the positions, with every symbol unknown and eliminated.

    (2/σ²) Σ_l Re{(Dᴴ Φ_lᴴ P⊥(Φ_lA) Φ_l D) ∘ (Σ_lᵀ ⊗ 1_{3×3})},   Σ_l = Σ_t s sᴴ    ([1])

    Args:
        scenes: The truth.
        config: The size.
        symbols_BLKT: s; None takes the expectation Σ_l = T diag(p).

    Returns:
        information_BXX, float64, in 1/rad², 1/(rad m), 1/m²; zero for absent sources, and for
        scenes of M sources or more.

    References:
        [1] P. Stoica and A. Nehorai, "Performance study of conditional and unconditional
            direction-of-arrival estimation," IEEE Trans. Acoust., Speech, Signal Process.,
            vol. 38, no. 10, pp. 1783-1795, Oct. 1990, doi:10.1109/29.60109.
    """
    mask_BK = scenes.source_mask_BK
    V_BLMK, D_BLMX, sigma2_B = _observe(scenes, config)
    if symbols_BLKT is None:
        T = scenes.snapshots_BLMT.shape[-1]
        power_BLKK = torch.diag_embed(T * scenes.powers_BK).unsqueeze(1).to(D_BLMX.dtype)
    else:
        kept_BLKT = symbols_BLKT.to(D_BLMX.dtype).where(mask_BK[:, None, :, None], 0)
        power_BLKK = kept_BLKT @ kept_BLKT.mH
    gram_BLXX = gram(residual(D_BLMX, V_BLMK, mask_BK.unsqueeze(1)))
    total_BXX = (gram_BLXX * each_coordinate(power_BLKK.mT)).real.sum(1)
    # As many sources as antennas leave no complement: the sum would be rounding.
    is_full_B = mask_BK.sum(-1) >= V_BLMK.shape[-2]
    return (2 / sigma2_B[:, None, None] * total_BXX).where(~is_full_B[:, None, None], 0)


def steering_and_derivatives(scenes: Scenes, config: ArrayConfig) -> tuple[Tensor, Tensor]:
    """A (B, N, K) and D (B, N, X) in complex128; zero columns for absent sources."""
    mask_BK = scenes.source_mask_BK
    # An absent source gets any finite position, as NaN times its mask of 0 would be NaN.
    positions_BK3 = scenes.positions_BK3.where(mask_BK.unsqueeze(-1), config.range_max_m).double()
    elements_N3 = element_positions(config, device=positions_BK3.device).double()
    A_BNK, D_BNK3 = steering_derivatives(
        positions_BK3, elements_N3, wavelength_m=config.wavelength_m
    )
    D_BNX = D_BNK3.flatten(-2) * kept_coordinates(scenes).unsqueeze(-2)
    return A_BNK * mask_BK.unsqueeze(-2), D_BNX


def kept_coordinates(scenes: Scenes) -> Tensor:
    """Mask of those of the X coordinates that belong to present sources, (B, X), bool."""
    return scenes.source_mask_BK.repeat_interleave(3, dim=-1)


def residual(columns_BMX: Tensor, basis_BMK: Tensor, mask_BK: Tensor) -> Tensor:
    """P⊥ of the basis columns present, which come first, applied to other columns."""
    # In Householder QR the first k columns of Q span the first k columns, whatever follows.
    Q_BMK = torch.linalg.qr(basis_BMK).Q
    Q_BMK = Q_BMK * mask_BK[..., : Q_BMK.shape[-1]].unsqueeze(-2)
    projected_BMX: Tensor = Q_BMK @ (Q_BMK.mH @ columns_BMX)
    return columns_BMX - projected_BMX


def gram(columns_BMX: Tensor) -> Tensor:
    return columns_BMX.mH @ columns_BMX


def each_coordinate(matrix_BKK: Tensor) -> Tensor:
    """The Kronecker product with 1_{3×3}, (…, X, X)."""
    return matrix_BKK.repeat_interleave(3, dim=-2).repeat_interleave(3, dim=-1)


def _observe(scenes: Scenes, config: ArrayConfig) -> tuple[Tensor, Tensor, Tensor]:
    """V = Φ_l A (B, L, M, K), its derivatives Φ_l D (B, L, M, X), and the exact σ² (B)."""
    wall, K = scenes.installation, scenes.powers_BK.shape[1]
    double = Installation(wall.channel_BMN.to(torch.complex128), wall.codes_BLN)
    columns_BNZ = torch.cat(steering_and_derivatives(scenes, config), dim=-1)
    # einsum takes a shared wall (B = 1) as it is; a matrix product would copy it for every scene.
    seen_BLMZ = torch.einsum("blmn,bnz->blmz", double.sensing_BLMN, columns_BNZ)
    V_BLMK, D_BLMX = seen_BLMZ[..., :K], seen_BLMZ[..., K:]
    gain_B = (V_BLMK.abs().square().mean((1, 2)) * scenes.powers_BK.double()).sum(-1)
    return V_BLMK, D_BLMX, gain_B * 10 ** (-scenes.snr_db_B.double() / 10)
