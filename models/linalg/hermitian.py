"""Hermitian matrices as real vectors, and back."""

from math import sqrt

import torch
from torch import Tensor


def pack_hermitian(matrix_MM: Tensor) -> Tensor:
    """Pack Hermitian matrices (…, M, M) into M² reals (…, X), whose dot product is tr(A B)."""
    m = matrix_MM.shape[-1]
    row, column = torch.tril_indices(m, m, -1, device=matrix_MM.device)
    below = matrix_MM[..., row, column] * sqrt(2)
    return torch.cat((matrix_MM.diagonal(dim1=-2, dim2=-1).real, below.real, below.imag), -1)


def unpack_hermitian(packed_X: Tensor, m: int) -> Tensor:
    """Inverse of `pack_hermitian` for an m×m matrix."""
    row, column = torch.tril_indices(m, m, -1, device=packed_X.device)
    real_X, imag_X = packed_X[..., : m + len(row)], packed_X[..., m + len(row) :]
    below = torch.complex(real_X[..., m:], imag_X) / sqrt(2)
    matrix_MM = torch.diag_embed(real_X[..., :m]).to(below.dtype)
    matrix_MM[..., row, column] = below
    matrix_MM[..., column, row] = below.conj()
    return matrix_MM
