"""Small decompositions with a finite gradient: r×r and K×K Gram matrices, never an N×N one.

The eigendecompositions are in `eigh` and re-exported here. The N×N ones are for objectives without
a factor to form a Gram matrix from.

Everything is computed in the dtype given, complex64 or complex128. Non-finite input gives
non-finite output, never an exception: the guard judges it.

Shapes: B scenes; N elements; R rank of a factor F; K sources at most (an absent one is a zero
column of A and False in the mask).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from models.linalg.eigh import ROUNDING, dominant_whitener, eigh_broadened, eigh_signal

__all__ = [
    "ROUNDING",
    "cholesky_logdet",
    "column_energy",
    "dominant_whitener",
    "eigh_broadened",
    "eigh_signal",
    "nystrom_factor",
    "ridge_cholesky",
    "span_whitener",
    "trace",
]


def ridge_cholesky(gram_BRR: Tensor, noise_B: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor of s I + G, positive definite in floating point too.

    Args:
        gram_BRR: G, Hermitian, positive semidefinite.
        noise_B: s >= 0, real.

    Returns:
        The noise, floored at 8 ε tr G, the least that the dtype resolves (1.4e-4 at tr G = 144 in
        fp32); and the lower factor L_BRR, NaN where G is not finite.
    """
    eps = torch.finfo(gram_BRR.dtype).eps
    floor_B = torch.maximum(noise_B, ROUNDING * eps * trace(gram_BRR))
    eye_RR = torch.eye(gram_BRR.shape[-1], dtype=gram_BRR.dtype, device=gram_BRR.device)
    return floor_B, _cholesky(gram_BRR + floor_B[:, None, None] * eye_RR)


@torch.no_grad()
def span_whitener(label_BNK: Tensor, mask_BK: Tensor) -> Tensor:
    """V_BKK with Qᴴ = V Aᴴ for an orthonormal basis Q of the present columns of A.

    V = L⁻¹ D, where D scales the columns to unit length and L Lᴴ = D Aᴴ A D + 8 ε I. Thus powers
    40 dB apart do not worsen the conditioning, and coincident sources count as one. An absent
    source gives a zero row.
    """
    length_BK = column_energy(label_BNK).sqrt()
    gain_BK = mask_BK / torch.where(mask_BK & (length_BK > 0), length_BK, 1.0)
    gram_BKK = gain_BK[:, :, None] * (label_BNK.mH @ label_BNK) * gain_BK[:, None, :]
    load_BK = (~mask_BK).to(gain_BK.dtype) + ROUNDING * torch.finfo(gain_BK.dtype).eps
    chol_BKK = _cholesky(gram_BKK + torch.diag_embed(load_BK))
    scale_BKK = torch.diag_embed(gain_BK).to(chol_BKK.dtype)
    whitener_BKK: Tensor = torch.linalg.solve_triangular(chol_BKK, scale_BKK, upper=False)
    return whitener_BKK


def nystrom_factor(
    apply: Callable[[Tensor], Tensor], start_BNR: Tensor, *, load: float = 1e-4
) -> Tensor:
    """Factor F of a positive semidefinite R in its dominant directions, from products with R alone.

    F = R V L⁻ᴴ,  L Lᴴ = Vᴴ R V + load · tr(Vᴴ R V) I,  V an orthonormal basis of R · start

    F Fᴴ equals R if its rank is at most the number of columns ([1], one step of subspace
    iteration). V is a constant for the gradient, which is therefore exact except for the part of R
    outside of the dominant span.

    Args:
        apply: Maps X_BNR to R X.
        start_BNR: Complex columns, together orthogonal to no wanted direction.
        load: Directions weaker than this fraction of the trace fade out; > 0 keeps L regular.

    Returns:
        factor_BNR.

    References:
        [1] N. Halko, P.-G. Martinsson, J. A. Tropp, "Finding structure with randomness," SIAM
        Review, vol. 53, no. 2, 2011, eq. (5.1) and §5.5.
    """
    with torch.no_grad():
        basis_BNR = apply(start_BNR)
        basis_BNR = _over_cholesky(basis_BNR, basis_BNR.mH @ basis_BNR, 0.0)
    image_BNR = apply(basis_BNR)
    return _over_cholesky(image_BNR, basis_BNR.mH @ image_BNR, load)


def _over_cholesky(columns_BNR: Tensor, gram_BRR: Tensor, load: float) -> Tensor:
    """X L⁻ᴴ with L Lᴴ = G + load · tr(G) I."""
    _, chol_BRR = ridge_cholesky(gram_BRR, load * trace(gram_BRR).detach())
    turned_BNR: Tensor = torch.linalg.solve_triangular(
        chol_BRR.mH, columns_BNR, upper=True, left=False
    )
    return turned_BNR


def _cholesky(matrix_BRR: Tensor) -> Tensor:
    """Lower factor without a device sync; NaN on failure, where LAPACK leaves finite numbers."""
    chol_BRR, info_B = torch.linalg.cholesky_ex(matrix_BRR)
    return torch.where(info_B[:, None, None] == 0, chol_BRR, torch.nan)


def cholesky_logdet(chol_BRR: Tensor) -> Tensor:
    """logdet L Lᴴ = 2 Σ log L_ii, of shape B, real."""
    return 2 * chol_BRR.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


def trace(matrix_BRR: Tensor) -> Tensor:
    """Real part of the trace, of shape B."""
    return matrix_BRR.diagonal(dim1=-2, dim2=-1).real.sum(-1)


def column_energy(matrix_BNK: Tensor) -> Tensor:
    """‖x_k‖², of shape BK, without the modulus, which has no derivative at 0."""
    return (matrix_BNK.real.square() + matrix_BNK.imag.square()).sum(-2)
