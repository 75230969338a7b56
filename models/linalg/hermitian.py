"""Hermitian matrices as real vectors, and back."""

from functools import lru_cache
from math import sqrt

import torch
from torch import Tensor

# Up to here a product with a constant matrix is faster than indexing: 27 against 60 µs for 2,048
# matrices of 4×4 on one CPU core. Its cost grows as M⁴: at 16×16 it takes 11 times as long.
_LARGEST_PRODUCT = 6


def pack_hermitian(matrix_MM: Tensor) -> Tensor:
    """Pack Hermitian matrices (…, M, M) into M² reals (…, X), whose dot product is tr(A B).

    They are the diagonal, then √2 times the real and the imaginary parts below it, row by row.
    """
    m = matrix_MM.shape[-1]
    if m <= _LARGEST_PRODUCT:
        parts_Y = torch.view_as_real(matrix_MM.resolve_conj()).flatten(-3)
        return parts_Y @ _packing(m, parts_Y.dtype, parts_Y.device)
    row, column = torch.tril_indices(m, m, -1, device=matrix_MM.device)
    below = matrix_MM[..., row, column] * sqrt(2)
    return torch.cat((matrix_MM.diagonal(dim1=-2, dim2=-1).real, below.real, below.imag), -1)


def unpack_hermitian(packed_X: Tensor, m: int) -> Tensor:
    """Inverse of `pack_hermitian` for an m×m matrix."""
    if m <= _LARGEST_PRODUCT:
        parts_Y = packed_X @ _unpacking(m, packed_X.dtype, packed_X.device)
        return torch.view_as_complex(parts_Y.unflatten(-1, (m, m, 2)))
    row, column = torch.tril_indices(m, m, -1, device=packed_X.device)
    real_X, imag_X = packed_X[..., : m + len(row)], packed_X[..., m + len(row) :]
    below = torch.complex(real_X[..., m:], imag_X) / sqrt(2)
    matrix_MM = torch.diag_embed(real_X[..., :m]).to(below.dtype)
    matrix_MM[..., row, column] = below
    matrix_MM[..., column, row] = below.conj()
    return matrix_MM


@lru_cache(maxsize=32)
def _packing(m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (2 M², M²) that maps the real and imaginary parts of the entries to packed reals."""
    row, column = torch.tril_indices(m, m, -1).tolist()
    # Tensors of inference mode could not be saved for a gradient later.
    with torch.inference_mode(False):
        packing_MM2X = torch.zeros(m, m, 2, m * m, dtype=dtype, device=device)
        for i in range(m):
            packing_MM2X[i, i, 0, i] = 1
        for at, (i, j) in enumerate(zip(row, column, strict=True), start=m):
            packing_MM2X[i, j, 0, at] = sqrt(2)
            packing_MM2X[i, j, 1, at + len(row)] = sqrt(2)
        return packing_MM2X.flatten(0, 2)


@lru_cache(maxsize=32)
def _unpacking(m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (M², 2 M²) that maps packed reals to the real and imaginary parts of the entries."""
    with torch.inference_mode(False):
        packing_MM2X = _packing(m, dtype, device).unflatten(0, (m, m, 2))
        conjugate_MM2X = packing_MM2X.transpose(0, 1).clone()
        conjugate_MM2X[:, :, 1] *= -1
        # Each entry below the diagonal has 1/√2 of its real, and so has its conjugate above.
        return ((packing_MM2X + conjugate_MM2X) / 2).flatten(0, 2).T.contiguous()
