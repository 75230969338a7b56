"""Small Hermitian matrices by their entries against torch's own linear algebra."""

import pytest
import torch

from models.linalg.entries import (
    inverse_entries,
    pack_entries,
    product_entries,
    unpack_entries,
)
from models.linalg.hermitian import pack_hermitian


def positive(m: int, *, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    """Positive definite matrices by their entries, (M, M, 3, 5)."""
    generator = torch.Generator().manual_seed(m)
    root = torch.randn(3, 5, m, m, dtype=dtype, generator=generator)
    return (root @ root.mH + 0.1 * torch.eye(m)).permute(2, 3, 0, 1).contiguous()


def by_matrix(entries_MM: torch.Tensor) -> torch.Tensor:
    return entries_MM.permute(2, 3, 0, 1)


# 7 is beyond the size up to which entries are faster.
@pytest.mark.parametrize("m", [1, 2, 4, 5, 7])
def test_products_and_inverses_by_entries_are_those_of_the_matrices(m):
    a, b = positive(m), positive(m) + 1j * positive(m)

    torch.testing.assert_close(by_matrix(product_entries(a, b)), by_matrix(a) @ by_matrix(b))
    torch.testing.assert_close(by_matrix(inverse_entries(a)), torch.linalg.inv(by_matrix(a)))


@pytest.mark.parametrize("m", [1, 2, 5])
def test_entries_are_packed_as_matrices_are_and_come_back(m):
    a = positive(m)

    torch.testing.assert_close(pack_entries(a).movedim(0, -1), pack_hermitian(by_matrix(a)))
    torch.testing.assert_close(unpack_entries(pack_entries(a), m), a)


def test_an_inverse_in_single_precision_errs_as_little_as_lapacks():
    exact = positive(4)
    single = exact.to(torch.complex64)
    expected = by_matrix(inverse_entries(exact))

    def error(found: torch.Tensor) -> torch.Tensor:
        return (found - expected).abs().amax((-2, -1)) / expected.abs().amax((-2, -1))

    # Elimination without pivots is stable for positive definite matrices: both err by some ε κ.
    ours = error(by_matrix(inverse_entries(single)))
    theirs = error(torch.linalg.inv(by_matrix(single)))
    assert ours.max() < 4 * theirs.max() + 1e-6


def test_a_non_finite_matrix_spoils_no_other():
    a = positive(3)
    spoilt = a.clone()
    spoilt[0, 0, 1, 2] = torch.nan

    found, expected = inverse_entries(spoilt), inverse_entries(a)

    assert found[:, :, 1, 2].isnan().any()
    found[:, :, 1, 2] = expected[:, :, 1, 2]
    torch.testing.assert_close(found, expected)
