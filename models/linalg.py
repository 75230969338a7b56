"""Small decompositions with a safe gradient: r×r and K×K Gram matrices, never an N×N one.

Everything is computed in the dtype given, complex64 or complex128. Non-finite input gives
non-finite output, never an exception: the guard decides about it.

Shapes: B scenes; N elements; R rank of a factor F; K sources at most, an absent one being a zero
column of A and False in the mask.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# A Gram matrix of trace τ formed and factored in floating point errs by a few ε·τ (Higham,
# "Accuracy and Stability of Numerical Algorithms", 2nd ed., §3.5 and §10.1): what is below 8 ε τ is
# rounding.
ROUNDING = 8.0


def dominant_inverse(gram_BRR: Tensor, count_B: Tensor) -> Tensor:
    """Pseudo-inverse of the dominant part of a Gram matrix of unit trace.

    T = W_K Λ_K⁻¹ W_Kᴴ,  G = W Λ Wᴴ; with G = Fᴴ F the projector on the dominant span is F T Fᴴ.

    The gradient is exact (Daleckii-Krein): Ḡ = W [Γ ∘ (Wᴴ T̄ W)] Wᴴ, with Γ the divided differences
    of f(λ) = 1/λ on the kept and 0 on the dropped eigenvalues: −1/(λi λj) between kept ones,
    1/(λi (λi − λj)) between a kept i and a dropped j, 0 between dropped ones. The one gap in it is
    that between kept and dropped. Eigenvalues and that gap count as at least 8 ε.

    Args:
        gram_BRR: G, Hermitian, positive semidefinite, of unit trace (or 0).
        count_B: K, scene by scene; all of G is kept where K >= R.

    Returns:
        T_BRR, Hermitian. NaN for a scene that holds a non-finite number.
    """
    inverse_BRR: Tensor = _DominantInverse.apply(gram_BRR, count_B)  # type: ignore[no-untyped-call]
    return inverse_BRR


class _DominantInverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, gram_BRR: Tensor, count_B: Tensor) -> Tensor:
        r = gram_BRR.shape[-1]
        # eigh raises on NaN; a poisoned scene must answer NaN instead, and leave the others alone.
        finite_B11 = gram_BRR.isfinite().all(-1).all(-1)[:, None, None]
        eye_RR = torch.eye(r, dtype=gram_BRR.dtype, device=gram_BRR.device)
        value_BR, vector_BRR = torch.linalg.eigh(torch.where(finite_B11, gram_BRR, eye_RR))
        floor = ROUNDING * torch.finfo(gram_BRR.dtype).eps
        is_kept_BR = torch.arange(r, device=gram_BRR.device) >= r - count_B[:, None]
        inverse_BR = is_kept_BR / value_BR.clamp(min=floor)
        inverse_BR = torch.where(finite_B11[..., 0], inverse_BR, torch.nan)
        ctx.save_for_backward(value_BR, vector_BRR, inverse_BR, is_kept_BR)
        dominant_BRR: Tensor = (vector_BRR * inverse_BR[:, None, :]) @ vector_BRR.mH
        return dominant_BRR

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_BRR: Tensor) -> tuple[Tensor, None]:
        value_BR, vector_BRR, inverse_BR, is_kept_BR = ctx.saved_tensors  # type: ignore[attr-defined]
        floor = ROUNDING * torch.finfo(value_BR.dtype).eps
        floored_BR = value_BR.clamp(min=floor)
        gap_BRR = (value_BR[:, :, None] - value_BR[:, None, :]).abs()
        # Slope of max(λ, floor): 1 above, 0 below; between one of each the chord, which is < 1.
        chord_BRR = (floored_BR[:, :, None] - floored_BR[:, None, :]).abs() / gap_BRR
        above_BR = (value_BR > floor).to(value_BR.dtype)
        slope_BRR = torch.where(gap_BRR > 0, chord_BRR, above_BR[:, :, None])
        kept_BRR = -inverse_BR[:, :, None] * inverse_BR[:, None, :] * slope_BRR
        # One of the two inverses is 0 between a kept and a dropped one, both are between dropped.
        cross_BRR = (inverse_BR[:, :, None] + inverse_BR[:, None, :]) / gap_BRR.clamp(min=floor)
        is_cross_BRR = is_kept_BR[:, :, None] != is_kept_BR[:, None, :]
        affinity_BRR = torch.where(is_cross_BRR, cross_BRR, kept_BRR)
        inner_BRR = vector_BRR.mH @ grad_BRR @ vector_BRR
        return vector_BRR @ (affinity_BRR * inner_BRR) @ vector_BRR.mH, None


def ridge_cholesky(gram_BRR: Tensor, noise_B: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor of s I + G, positive definite in floating point too.

    Args:
        gram_BRR: G, Hermitian, positive semidefinite.
        noise_B: s >= 0, real.

    Returns:
        The noise, floored at 8 ε tr G, which is what the dtype resolves (1.4e-4 at tr G = 144 in
        fp32); and the lower factor L_BRR, NaN where G is not finite.
    """
    eps = torch.finfo(gram_BRR.dtype).eps
    floor_B = torch.maximum(noise_B, ROUNDING * eps * trace(gram_BRR))
    eye_RR = torch.eye(gram_BRR.shape[-1], dtype=gram_BRR.dtype, device=gram_BRR.device)
    return floor_B, _cholesky(gram_BRR + floor_B[:, None, None] * eye_RR)


@torch.no_grad()
def span_whitener(label_BNK: Tensor, mask_BK: Tensor) -> Tensor:
    """V_BKK with Qᴴ = V Aᴴ for an orthonormal basis Q of the present columns of A.

    V = L⁻¹ D, D scaling the columns to unit length and L Lᴴ = D Aᴴ A D + 8 ε I: powers 40 dB apart
    condition nothing, and of coincident sources one remains. An absent source gives a zero row.
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
    """Factor F of a positive semidefinite R in its dominant directions, by products with R alone.

    F = R V L⁻ᴴ,  L Lᴴ = Vᴴ R V + load · tr(Vᴴ R V) I,  V an orthonormal basis of R · start

    F Fᴴ is R itself where R has rank R or less ([1], one step of subspace iteration). V is constant
    for the gradient, which is then exact up to what R holds outside of the dominant span.

    Args:
        apply: X_BNR to R X.
        start_BNR: Complex columns that see every wanted direction.
        load: Directions weaker than this part of the trace fade out; > 0 keeps L regular.

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
    """Lower factor without a device sync; a failed one is NaN, not LAPACK's finite left-over."""
    chol_BRR, info_B = torch.linalg.cholesky_ex(matrix_BRR)
    return torch.where(info_B[:, None, None] == 0, chol_BRR, torch.nan)


def cholesky_logdet(chol_BRR: Tensor) -> Tensor:
    """logdet L Lᴴ = 2 Σ log L_ii, of shape B, real."""
    return 2 * chol_BRR.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


def trace(matrix_BRR: Tensor) -> Tensor:
    """Real part of the trace, of shape B."""
    return matrix_BRR.diagonal(dim1=-2, dim2=-1).real.sum(-1)


def column_energy(matrix_BNK: Tensor) -> Tensor:
    """‖x_k‖² of shape BK, without the modulus, whose root has no derivative at 0."""
    return (matrix_BNK.real.square() + matrix_BNK.imag.square()).sum(-2)
