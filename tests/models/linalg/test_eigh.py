"""The N×N eigendecompositions: exact where they say so, biased as they say, finite everywhere.

Shapes: B scenes, N elements, R rank, K columns.
"""

import pytest
import torch
from torch import Tensor
from torch.autograd import grad, gradcheck

from models.linalg import eigh_broadened, eigh_signal
from models.linalg.gram import dominant_whitener

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
DOUBLE = (torch.float64, torch.complex128)
N, RANK = 144, 5


def normal(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def hermitian(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mH) / 2


def with_values(values_BN: Tensor, *, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """A Hermitian matrix with random eigenvectors and these eigenvalues."""
    n = values_BN.shape[-1]
    basis = torch.linalg.qr(normal(*values_BN.shape[:-1], n, n, dtype=dtype, seed=seed))[0]
    return hermitian((basis * values_BN[..., None, :]) @ basis.mH)


def covariance(spread_db: float, *, dtype: torch.dtype = torch.complex128) -> Tensor:
    """R = F Fᴴ + σ² I with orthogonal columns of F: at 0 dB its signal eigenvalues tie as well."""
    columns = torch.linalg.qr(normal(2, N, RANK, dtype=dtype))[0]
    level_R = 10 ** (-torch.linspace(0, spread_db, RANK, dtype=torch.float64) / 20)
    factor = 12 * columns * level_R.to(dtype)
    return factor @ factor.mH + 0.1 * torch.eye(N, dtype=dtype)


def basis(k: int, *, n: int = N, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.linalg.qr(normal(2, n, k, dtype=dtype, seed=1))[0]


def missed(vectors_BNK: Tensor, basis_BNK: Tensor) -> Tensor:
    """Part of span(Q) outside of span(U), a function of the projector U Uᴴ alone."""
    seen = basis_BNK.mH @ vectors_BNK
    return 1 - (seen * seen.conj()).real.sum((-2, -1)) / basis_BNK.shape[-1]


def exact_gradient(R_BNN: Tensor, basis_BNK: Tensor, count: int) -> Tensor:
    """−[P⊥ Q Qᴴ P / Δ + h.c.] / K pair by pair in float64, over the signal-noise pairs alone."""
    values, vectors = torch.linalg.eigh(R_BNN)
    signal, noise = vectors[..., -count:], vectors[..., :-count]
    gap = values[..., None, -count:] - values[..., :-count, None]
    seen = (noise.mH @ basis_BNK) @ (basis_BNK.mH @ signal)
    return -2 * hermitian(noise @ (seen / gap) @ signal.mH) / basis_BNK.shape[-1]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# At 0 dB all signal eigenvalues tie: a cut through them is undefined.
@pytest.mark.parametrize(
    ("spread_db", "count"), [(0.0, RANK), (20.0, 1), (20.0, 3), (40.0, 3), (40.0, RANK)]
)
def test_the_projector_gradient_is_exact_where_autograd_through_eigh_is_nan(
    spread_db: float, count: int
) -> None:
    """The reason for the module. A finite gradient of torch's means that it or LAPACK changed."""
    R, Q = covariance(spread_db).requires_grad_(), basis(count)
    values = torch.linalg.eigvalsh(R.detach())
    gap = (values[:, -count] - values[:, -count - 1]).min()
    turned = hermitian(normal(2, N, N, seed=2))

    (through_torch,) = grad(missed(torch.linalg.eigh(R)[1][..., -count:], Q).sum(), R)
    (ours,) = grad(missed(eigh_signal(R, count)[1], Q).sum(), R)

    def along(step: Tensor) -> Tensor:
        return missed(torch.linalg.eigh(R.detach() + step * turned)[1][..., -count:], Q)

    assert through_torch.isnan().any()
    # A step of 1e-4 gap/‖D‖: truncation (1e-4)², and rounding ε λ₁/gap = 2e-12 over the 1e-6 or
    # more by which the loss moves.
    step = 1e-4 * gap / torch.linalg.matrix_norm(turned, 2).max()
    expected = (along(step) - along(-step)) / (2 * step)
    found = (ours.conj() * turned).sum((-2, -1)).real
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    # Two float64 evaluations of one formula: ε λ₁/gap = 2e-12, over 144 terms.
    assert relative(ours, exact_gradient(R.detach(), Q, count)) < 1e-10


@pytest.mark.parametrize("dtype", DOUBLE)
@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_gradients_of_what_does_not_see_rotations_pass_gradcheck(
    dtype: torch.dtype, count: int
) -> None:
    A = normal(2, 6, 6, dtype=dtype).requires_grad_()
    Q = basis(2, n=6, dtype=dtype)

    def loss(A: Tensor) -> Tensor:
        values, vectors = eigh_signal(hermitian(A), count)
        return missed(vectors, Q) + (values**3).sum(-1)

    assert gradcheck(loss, (A,))


@pytest.mark.parametrize("dtype", DOUBLE)
def test_ties_on_both_sides_of_the_gap_leave_gradients_exact(dtype: torch.dtype) -> None:
    values_BN = torch.tensor([[1.0, 1, 1, 4, 4, 4], [-2, 0, 0, 5, 5, 9]], dtype=torch.float64)
    R, Q = with_values(values_BN, dtype=dtype).requires_grad_(), basis(2, n=6, dtype=dtype)

    def loss(R: Tensor) -> Tensor:
        # Σ λ³ is symmetric: differentiable where eigenvalues tie.
        values, vectors = eigh_signal(hermitian(R), 3)
        return missed(vectors, Q) + (values**3).sum(-1)

    assert gradcheck(loss, (R,))


def test_a_matrix_function_of_the_signal_is_exact_in_the_form_without_eigenvalues() -> None:
    values_BN = torch.tensor([[0.1, 0.1, 1, 2, 2], [0.1, 0.2, 1, 2, 3]], dtype=torch.float64)
    R = with_values(values_BN, dtype=torch.complex128).requires_grad_()
    weight = hermitian(normal(2, 5, 5, seed=3))

    def by_solve(R: Tensor) -> Tensor:
        vectors = eigh_signal(hermitian(R), 3)[1]
        inner = vectors.mH @ hermitian(R) @ vectors
        return (weight @ vectors @ torch.linalg.solve(inner, vectors.mH)).diagonal(0, 1, 2).real

    def by_values(R: Tensor) -> Tensor:
        values, vectors = eigh_signal(hermitian(R), 3)
        return (weight @ (vectors / values[:, None]) @ vectors.mH).diagonal(0, 1, 2).real

    assert gradcheck(lambda R: by_solve(R).sum(-1), (R,))
    # U Λ⁻¹ Uᴴ lacks the rotations within the signal, as its docstring warns.
    torch.testing.assert_close(by_values(R), by_solve(R))
    (right,), (wrong,) = grad(by_solve(R).sum(), R), grad(by_values(R).sum(), R)
    assert relative(wrong, right) > 0.01


@pytest.mark.parametrize("dtype", DTYPES)
def test_simple_spectra_give_the_hermitian_gradient_of_torch(dtype: torch.dtype) -> None:
    values_BN = torch.tensor([[-1.0, 0.5, 1, 2, 4], [0.1, 0.3, 1, 3, 9]], dtype=torch.float64)
    R = with_values(values_BN, dtype=torch.complex128 if dtype.is_complex else torch.float64)
    R, Q = R.to(dtype).requires_grad_(), basis(2, n=5, dtype=dtype)

    def gradient(values: Tensor, vectors: Tensor) -> Tensor:
        weight_K = torch.tensor([1.0, 2, 5])
        return grad(missed(vectors, Q).sum() + (weight_K * values).sum(), R)[0]

    expected = gradient(*(part[..., -3:].flip(-1) for part in torch.linalg.eigh(R)))
    signal = gradient(*eigh_signal(R, 3))
    broadened = gradient(*(part[..., -3:].flip(-1) for part in eigh_broadened(R, broadening=1e-7)))

    # λ₁/gap <= 18 in each; the broadening's own (18e-7)² is below both roundings.
    eps = 18 * 16 * torch.finfo(dtype).eps
    for found in (signal, broadened):
        assert relative(found, expected) < eps
        assert relative(found.mH, found) < eps


@pytest.mark.parametrize("spread_db", [0.0, 20.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_follows_float64_within_the_condition_number(
    spread_db: float, dtype: torch.dtype
) -> None:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    single = covariance(spread_db, dtype=wide).to(dtype).requires_grad_()
    Q = basis(RANK, dtype=wide)
    R = single.detach().to(wide)

    (found,) = grad(missed(eigh_signal(single, RANK)[1], Q.to(dtype)).sum(), single)

    # eigh errs by 8 ε λ₁ (the spread of equal eigenvalues that it returns at this size), which
    # turns vectors and changes gaps by 8 ε λ₁/gap each: 1.9e-2 at 40 dB.
    values = torch.linalg.eigvalsh(R)
    kappa = (values[:, -1] / (values[:, -RANK] - values[:, -RANK - 1])).max()
    error = relative(found, exact_gradient(R, Q, RANK))
    assert error < 2 * 8 * torch.finfo(dtype).eps * kappa


def test_a_batch_of_mixed_counts_equals_its_entries_one_by_one() -> None:
    values_BN = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(4)).double()
    R = with_values(values_BN, dtype=torch.complex128).requires_grad_()
    count = torch.tensor([[0, 1, 2], [3, 4, 6]])
    Q = normal(6, 2, seed=5)

    def loss(values: Tensor, vectors: Tensor) -> Tensor:
        return missed(vectors, Q).sum() + (values + values**2).sum()

    values, vectors = eigh_signal(R, count)
    (together,) = grad(loss(values, vectors), R)

    assert values.shape == (2, 3, 6)
    for at, k in ((divmod(b, 3), int(count.flatten()[b])) for b in range(6)):
        alone_values, alone_vectors = eigh_signal(R[at], k)
        (alone,) = grad(loss(alone_values, alone_vectors), R)
        torch.testing.assert_close(values[at][:k], alone_values)
        assert not values[at][k:].any()
        assert not vectors[at][:, k:].any()
        orthonormal = vectors[at][:, :k].mH @ vectors[at][:, :k]
        torch.testing.assert_close(orthonormal, torch.eye(k, dtype=R.dtype))
        torch.testing.assert_close(together[at], alone[at])


def test_fewer_columns_are_the_same_with_the_count_limited_to_them() -> None:
    R = with_values(torch.arange(12.0).double().view(2, 6), dtype=torch.complex128).requires_grad_()
    count, Q = torch.tensor([2, 6]), normal(6, 2, seed=5)

    narrow = eigh_signal(R, count, columns=4)
    wide = eigh_signal(R, count.clamp(max=4))

    for few, many in zip(narrow, wide, strict=True):
        torch.testing.assert_close(few, many[..., :4])
    gradients = [grad(missed(vectors, Q).sum() + v.sum(), R)[0] for v, vectors in (narrow, wide)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1, 1), (4, 4), (0, 4, 4), (2, 3, 5, 5)])
def test_shapes_and_dtypes_hold_at_every_size(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    n, batch = shape[-1], shape[:-2]
    R = hermitian(normal(*shape, dtype=dtype)).requires_grad_()

    for k in (0, 1, n):
        values, vectors = eigh_signal(R, k)
        (gradient,) = grad(missed(vectors, vectors.new_ones(n, 1)).sum() + values.sum(), R)

        assert values.shape == (*batch, k)
        assert vectors.shape == (*batch, n, k)
        assert values.dtype == R.real.dtype
        assert vectors.dtype == R.dtype
        assert gradient.shape == shape
        assert torch.isfinite(gradient).all()
    # The projector on everything is I, the sum of all eigenvalues the trace.
    everything = torch.eye(n, dtype=dtype).expand(shape)
    torch.testing.assert_close(gradient, everything)
    values, vectors = eigh_broadened(R)
    expected = torch.linalg.eigh(R)
    torch.testing.assert_close((values, vectors), (expected[0], expected[1]))
    torch.testing.assert_close(grad(values.sum(), R)[0], everything)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_tie_at_the_cut_and_an_empty_matrix_leave_the_gradient_finite(
    dtype: torch.dtype, count: int
) -> None:
    rank_one = torch.ones(8, 8).to(dtype)
    Q = basis(2, n=8, dtype=dtype)[0]
    for R in (torch.zeros(8, 8).to(dtype), torch.eye(8).to(dtype), rank_one, 1e-30 * rank_one):
        R = R.clone().requires_grad_()

        signal, broadened = eigh_signal(R, count)[1], eigh_broadened(R)[1][..., -count:]

        for vectors, width in ((signal, 16 * torch.finfo(dtype).eps), (broadened, 1e-5)):
            (gradient,) = grad(missed(vectors, Q), R)
            # ‖Ū‖ <= 2 and no part of it is divided by less than the width times the norm.
            norm = torch.linalg.matrix_norm(R.detach().abs().double(), 2).clamp(min=1e-38)
            assert gradient.isfinite().all()
            assert gradient.abs().max() <= 2 / width / norm


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_poisoned_entry_is_nonfinite_and_leaves_the_others_alone(
    dtype: torch.dtype, poison: float
) -> None:
    clean = hermitian(normal(3, 6, 6, dtype=dtype))
    R = clean.clone()
    R[1, 2, 2] = poison
    R.requires_grad_()
    Q = basis(2, n=6, dtype=dtype)[0]

    for decompose in (
        lambda R: eigh_signal(R, 2),
        lambda R: eigh_signal(R, torch.tensor([2, 0, 2])),
        lambda R: eigh_broadened(R),
    ):
        values, vectors = decompose(R)
        (gradient,) = grad(missed(vectors[..., -2:], Q).sum() + values.sum(), R)

        for part, expected in zip((values, vectors), decompose(clean), strict=True):
            assert part.isfinite().flatten(1).any(1).tolist() == [True, False, True]
            torch.testing.assert_close(part[::2], expected[::2])
        assert gradient.isfinite().flatten(1).any(1).tolist() == [True, False, True]
        assert gradient[::2].isfinite().all()


@pytest.mark.parametrize("decompose", [lambda R: eigh_signal(R, 2), eigh_broadened])
def test_a_second_derivative_is_refused(decompose) -> None:
    R = hermitian(normal(4, 4)).requires_grad_()
    Q = basis(2, n=4)[0]

    (first,) = grad(missed(decompose(R)[1][:, -2:], Q), R, create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.abs().sum().backward()


# ε²/(gap² + ε²) at a gap of 1e-4 λ₁: 9.8e-3 by default, and 8.2e-2.
@pytest.mark.parametrize(("given", "broadening"), [({}, 1e-5), ({"broadening": 3e-5}, 3e-5)])
@pytest.mark.parametrize("spread_db", [0.0, 20.0, 40.0])
def test_the_bias_of_the_broadened_gradient_is_what_its_formula_says(
    spread_db: float, given: dict[str, float], broadening: float
) -> None:
    R, Q = covariance(spread_db).requires_grad_(), basis(RANK)
    values = torch.linalg.eigvalsh(R.detach())
    gap = ((values[:, -RANK] - values[:, -RANK - 1]) / values[:, -1]).min()

    (biased,) = grad(missed(eigh_broadened(R, **given)[1][..., -RANK:], Q).sum(), R)

    error = relative(biased, exact_gradient(R.detach(), Q, RANK))
    # Every pair's part is too small by at most this; the weakest source's part, whose gap is the
    # least, is the largest part of the gradient.
    bound = float(broadening**2 / (gap**2 + broadening**2))
    assert bound / 2 < error < bound + 1e-10


def test_the_whitener_gives_the_dominant_projector_of_each_scene() -> None:
    factor = normal(4, 12, 5, seed=6)
    factor = factor / factor.abs().square().sum((1, 2), keepdim=True).sqrt()
    count_B = torch.tensor([0, 2, 3, 5])

    whitener = dominant_whitener(factor.mH @ factor, count_B)

    basis_BNC = eigh_signal(factor @ factor.mH, count_B, columns=5)[1]
    # λ₁/λ₅ < 10 here: a few roundings of float64.
    expected = basis_BNC @ basis_BNC.mH
    torch.testing.assert_close(factor @ whitener @ (factor @ whitener).mH, expected)


@pytest.mark.parametrize("write", [(-1, None), (5, None), (1, 5)])
def test_an_impossible_count_is_refused_with_what_to_write(write: tuple[int, int | None]) -> None:
    with pytest.raises(ValueError, match="for 4x4 matrices; write 0 to 4"):
        eigh_signal(torch.eye(4), write[0], columns=write[1])


def test_a_broadening_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="write a number above 0"):
        eigh_broadened(torch.eye(4), broadening=0.0)
