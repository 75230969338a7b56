"""Spectra of a decomposition's input: condition, gaps and ties of its matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hpo.guard.evidence import Spectrum
from hpo.guard.float64 import WIDER

# Losses on covariances break in decompositions and solves, so the inputs of these are analysed.
DECOMPOSITIONS = (
    *("eigh", "eigvalsh", "eig", "svd", "svdvals", "cholesky", "cholesky_ex", "qr"),
    *("solve", "solve_ex", "inv", "inv_ex", "lu_factor", "ldl_factor", "lstsq", "pinv"),
)
# Only the first 16 matrices of a batch are analysed, which bounds the cost.
_MATRICES = 16


def spectrum(operation: str, where: str, matrices: Tensor) -> Spectrum | None:
    """Spectrum of a batch of matrices; None if none of those analysed is finite."""
    if matrices.ndim < 2 or not matrices.numel():
        return None
    rows, columns = matrices.shape[-2:]
    some = matrices.detach().reshape(-1, rows, columns)[:_MATRICES]
    some = some[torch.isfinite(some).all(-1).all(-1)].cpu()
    wide = some.to(WIDER.get(some.dtype, some.dtype))
    is_hermitian = operation.removeprefix("linalg_") in ("eigh", "eigvalsh")
    try:
        values = (torch.linalg.eigvalsh if is_hermitian else torch.linalg.svdvals)(wide)
    except LinAlgError:
        return None
    if not len(values):
        return None
    values = values.sort(-1).values
    size = values.abs()
    largest = size.amax(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    gaps = values.diff(dim=-1) / largest
    resolution = max(rows, columns) * torch.finfo(some.dtype).eps
    return Spectrum(
        operation=operation,
        where=where,
        shape=(rows, columns),
        matrices=matrices.numel() // (rows * columns),
        condition=float((largest[:, 0] / size.amin(-1)).max()),
        smallest_gap=float(gaps.min()) if gaps.numel() else 1.0,
        ties=int((gaps < resolution).sum(-1).max()) if gaps.numel() else 0,
    )
