"""The losses against their N×N formulas in float64, and where those formulas fail."""

from math import pi

import pytest
import torch
from torch import Tensor

from models.linalg.gram import ROUNDING
from models.ris.network.losses import (
    Solved,
    covariance_error,
    gaussian_nll,
    peak_contrast,
    ring_steering,
    subspace_alignment,
)
from models.ris.scene.scenes import SIZES, draw_scenes, stream_generator

N, R, K, P = 12, 4, 3, 5
EPS32 = torch.finfo(torch.float32).eps
MASKS = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=torch.bool)


class Case:
    """Four scenes of mixed K; everything float64, `loss` evaluates a term by its name."""

    def __init__(self, seed: int = 0, *, rank: int = R, spread_db: float = 6.0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.complex128, generator=generator)

        self.mask_BK = MASKS
        power_K = 10 ** (-torch.linspace(0, spread_db, K, dtype=torch.float64) / 10)
        self.label_BNK = normal(4, N, K) * power_K.sqrt() * MASKS.unsqueeze(-2)
        level_R = 10 ** (-torch.linspace(0, spread_db, rank, dtype=torch.float64) / 20)
        self.factor_BNR = normal(4, N, rank) * level_R
        self.noise_B = torch.tensor([0.3, 0.02, 1.0, 0.1], dtype=torch.float64)
        self.label_noise_B = torch.tensor([0.1, 0.05, 0.5, 0.1], dtype=torch.float64)
        phase_BNKP = 2 * pi * torch.rand(4, N, K, P, dtype=torch.float64, generator=generator)
        self.ring_BNKP = torch.complex(phase_BNKP.cos(), phase_BNKP.sin())

    def loss(self, term: str, factor: Tensor, noise: Tensor, scenes: slice | None = None) -> Tensor:
        at = scenes or slice(None)
        real, label = noise.dtype, self.label_BNK[at].to(factor.dtype)
        if term == "norm":
            return covariance_error(factor, noise, label, self.label_noise_B[at].to(real))
        if term == "nll":
            return gaussian_nll(factor, noise, label, self.label_noise_B[at].to(real))
        if term == "subspace":
            return subspace_alignment(factor, label, self.mask_BK[at])
        ring, mask = self.ring_BNKP[at].to(factor.dtype), self.mask_BK[at]
        return peak_contrast(factor, noise, steering_BNK=label, ring_BNKP=ring, mask_BK=mask)

    def reference(self, term: str, factor: Tensor, noise: Tensor) -> Tensor:
        """The same term scene by scene by the textbook's N×N formula."""
        eye = torch.eye(N, dtype=factor.dtype)
        values = []
        for b in range(4):
            F, A = factor[b], self.label_BNK[b][:, self.mask_BK[b]]
            k = A.shape[-1]
            R_NN = F @ F.mH + noise[b] * eye
            T_NN = A @ A.mH + self.label_noise_B[b] * eye
            Q = torch.linalg.qr(A)[0]
            if term == "norm":
                values.append((R_NN - T_NN).abs().square().sum() / T_NN.abs().square().sum())
            elif term == "nll":
                fit = torch.linalg.solve(R_NN, T_NN).diagonal().sum().real
                excess = torch.linalg.slogdet(R_NN)[1] - torch.linalg.slogdet(T_NN)[1]
                values.append((excess + fit) / N - 1)
            elif term == "subspace":
                U = torch.linalg.svd(F, full_matrices=False)[0][:, :k]
                values.append(1 - (Q.mH @ U).abs().square().sum() / k)
            else:
                inverse = torch.linalg.inv(R_NN)
                vectors = torch.cat((A[..., None], self.ring_BNKP[b][:, self.mask_BK[b]]), -1)
                null = torch.einsum("nkp,nm,mkp->kp", vectors.conj(), inverse, vectors).real
                null = null / vectors.abs().square().sum(0)
                values.append((null[:, 0] / (null[:, 0] + null[:, 1:].mean(-1))).mean())
        return torch.stack(values)


TERMS = ("norm", "nll", "subspace", "peak")


def gradient(case: Case, term: str, factor: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    factor, noise = factor.detach().requires_grad_(), noise.detach().requires_grad_()
    found = torch.autograd.grad(
        case.loss(term, factor, noise).sum(), (factor, noise), allow_unused=True
    )
    return found[0], torch.zeros_like(noise) if found[1] is None else found[1]


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("rank", [3, 4, 7])
def test_every_term_equals_its_n_by_n_formula(term: str, rank: int) -> None:
    case = Case(rank, rank=rank)

    value_B = case.loss(term, case.factor_BNR, case.noise_B)

    # Condition numbers are under 1e5 here: 1e5 ε of float64 is 2e-11.
    expected_B = case.reference(term, case.factor_BNR, case.noise_B)
    torch.testing.assert_close(value_B, expected_B, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("term", TERMS)
def test_every_gradient_passes_gradcheck_and_equals_that_of_the_n_by_n_formula(term: str) -> None:
    case = Case(1)
    factor, noise = case.factor_BNR.requires_grad_(), case.noise_B.requires_grad_()

    found = gradient(case, term, factor, noise)

    loss = (lambda f, s: case.loss(term, f, s)) if term != "subspace" else None
    if loss is not None:
        assert torch.autograd.gradcheck(loss, (factor, noise))
    else:
        assert torch.autograd.gradcheck(lambda f: case.loss(term, f, noise), (factor,))
    # The N×N form of the subspace goes through an SVD of F, whose gradient exists: no ties here.
    total = case.reference(term, factor, noise).sum()
    expected = torch.autograd.grad(total, (factor, noise), allow_unused=True)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-8, atol=1e-9)
    if expected[1] is not None:
        torch.testing.assert_close(found[1], expected[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_autograd_through_the_n_by_n_eigh_gives_nan_where_ours_is_finite(
    dtype: torch.dtype,
) -> None:
    """The witness: keep it failing. A finite gradient here means that torch or LAPACK changed."""
    n, r, k = 144, 5, 3
    generator = torch.Generator().manual_seed(2)
    factor_BNR = torch.randn(2, n, r, dtype=dtype, generator=generator, requires_grad=True)
    label_BNK = torch.randn(2, n, k, dtype=dtype, generator=generator)
    R_BNN = factor_BNR @ factor_BNR.mH + 0.1 * torch.eye(n, dtype=dtype)
    vectors_BNK = torch.linalg.eigh(R_BNN)[1][..., -k:]
    Q_BNK = torch.linalg.qr(label_BNK)[0]
    witness_B = 1 - (Q_BNK.mH @ vectors_BNK).abs().square().sum((-2, -1)) / k

    ours_B = subspace_alignment(factor_BNR, label_BNK, torch.ones(2, k, dtype=torch.bool))
    (through_eigh,) = torch.autograd.grad(witness_B.sum(), factor_BNR)
    (ours,) = torch.autograd.grad(ours_B.sum(), factor_BNR)

    # Both values are sums of n terms of size 1/n, over a gap λ₁/gap < 100: 64 ε 100 = 8e-4.
    torch.testing.assert_close(ours_B, witness_B, rtol=0, atol=8e-4)
    assert through_eigh.isnan().any()
    assert torch.view_as_real(ours).isfinite().all()
    assert ours.abs().amax((-2, -1)).min() > 1e-5


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread_db", [0.0, 20.0, 40.0])
@pytest.mark.parametrize("rank", [3, 5, 8])
def test_complex64_gradient_follows_float64_within_the_condition_number(
    term: str, seed: int, spread_db: float, rank: int
) -> None:
    """Relative error <= 32 ε κ: ε the rounding of G, κ = λ₁/gap or (s + λ₁)/s what amplifies it.

    32 covers N = 12 terms of a dot product and rank <= 8 columns; the largest seen here is 16.
    """
    case = Case(seed, rank=rank, spread_db=spread_db)
    value_BR = torch.linalg.svdvals(case.factor_BNR).square()
    padded_BR = torch.cat((value_BR, torch.zeros(4, 1, dtype=torch.float64)), -1)
    count_B = case.mask_BK.sum(-1, keepdim=True)
    gap_B = (padded_BR.gather(-1, count_B - 1) - padded_BR.gather(-1, count_B))[:, 0]
    smallest_B = gap_B if term == "subspace" else case.noise_B
    kappa_B = (value_BR[:, 0] + case.noise_B) / smallest_B

    exact = gradient(case, term, case.factor_BNR, case.noise_B)
    single = gradient(case, term, case.factor_BNR.to(torch.complex64), case.noise_B.float())

    # "norm" inverts nothing: κ is 1.
    bound_B = 32 * EPS32 * (torch.ones_like(kappa_B) if term == "norm" else kappa_B)
    for found, expected in zip(single, exact, strict=True):
        axes = tuple(range(1, found.ndim))
        error_B = (found - expected).abs().square().sum(axes).sqrt()
        size_B = expected.abs().square().sum(axes).sqrt()
        assert (error_B <= bound_B * size_B + EPS32).all()


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_gradients_are_finite_over_twelve_decades_of_the_factor(term: str, scale: float) -> None:
    case = Case(3, spread_db=40.0)

    factor_grad, noise_grad = gradient(
        case, term, case.factor_BNR.to(torch.complex64) * scale, case.noise_B.float()
    )

    assert torch.view_as_real(factor_grad).isfinite().all()
    assert noise_grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_the_subspace_term_is_blind_to_scale_and_its_gradient_is_inverse_to_it(
    scale: float,
) -> None:
    case = Case(4)
    factor = case.factor_BNR.to(torch.complex64)

    plain, _ = gradient(case, "subspace", factor, case.noise_B.float())
    scaled, _ = gradient(case, "subspace", factor * scale, case.noise_B.float())

    # One rounding of every entry by the scale, amplified by λ₁/gap < 100 in this case.
    torch.testing.assert_close(scaled * scale, plain, rtol=0, atol=100 * 64 * EPS32)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_degenerate_factors_give_finite_values_and_gradients(term: str, dtype: torch.dtype) -> None:
    case = Case(5)
    orthonormal = torch.linalg.qr(case.factor_BNR)[0].to(dtype)
    rank_one = orthonormal[..., :1] * torch.ones(R, dtype=dtype)
    tied_kept = orthonormal * torch.tensor([3.0, 3.0, 3.0, 1.0])
    tied_dropped = orthonormal * torch.tensor([3.0, 2.0, 1.0, 1.0])
    label = torch.nn.functional.pad(case.label_BNK, (0, R - K)).to(dtype)
    zero = torch.zeros_like(orthonormal)
    for factor in (zero, rank_one, orthonormal, tied_kept, tied_dropped, label):
        noise_B = case.noise_B.to(factor.real.dtype)

        value_B = case.loss(term, factor, noise_B)
        factor_grad, noise_grad = gradient(case, term, factor, noise_B)

        assert value_B.isfinite().all()
        assert torch.view_as_real(factor_grad).isfinite().all()
        assert noise_grad.isfinite().all()


def test_ties_on_one_side_of_the_gap_leave_the_gradient_exact() -> None:
    case = Case(6)
    case.mask_BK = torch.ones(4, 2, dtype=torch.bool)
    case.label_BNK = case.label_BNK[..., :2] + 1
    orthonormal = torch.linalg.qr(case.factor_BNR)[0]
    factor = (orthonormal * torch.tensor([2.0, 2.0, 1.0, 1.0])).requires_grad_()

    assert torch.autograd.gradcheck(lambda f: case.loss("subspace", f, case.noise_B), (factor,))


def test_a_missing_direction_counts_as_missed() -> None:
    case = Case(7)
    case.mask_BK = torch.ones(4, K, dtype=torch.bool)
    case.label_BNK = torch.linalg.qr(case.label_BNK + 1)[0]
    one_of_three = torch.nn.functional.pad(case.label_BNK[..., :1], (0, 3))

    nothing_B = case.loss("subspace", torch.zeros_like(one_of_three), case.noise_B)
    third_B = case.loss("subspace", one_of_three, case.noise_B)

    torch.testing.assert_close(nothing_B, torch.ones_like(nothing_B))
    torch.testing.assert_close(third_B, torch.full_like(third_B, 2 / 3), rtol=0, atol=1e-12)


def test_every_term_is_least_at_the_label() -> None:
    case = Case(8)
    perfect = torch.nn.functional.pad(case.label_BNK, (0, 1))

    for term in ("norm", "nll", "subspace"):
        value_B = case.loss(term, perfect, case.label_noise_B)

        # ROUNDING ε loads the label's span by design; the rest is rounding.
        torch.testing.assert_close(value_B, torch.zeros(4).double(), rtol=0, atol=1e-12)
        assert (case.loss(term, case.factor_BNR, case.noise_B) > 0.01).all()
    assert ROUNDING * torch.finfo(torch.float64).eps < 1e-12


def test_the_likelihood_is_bounded_below_as_the_noise_vanishes() -> None:
    case = Case(9)
    perfect = torch.nn.functional.pad(case.label_BNK, (0, 1))

    values = [case.loss("nll", perfect, torch.full((4,), s).double()) for s in (1e-1, 1e-3, 1e-9)]

    assert all((value_B > -1e-12).all() for value_B in values)
    assert (values[2] > values[1]).all()


@pytest.mark.parametrize("term", TERMS)
def test_a_batch_of_mixed_k_equals_its_scenes_one_by_one(term: str) -> None:
    case = Case(10)

    together_B = case.loss(term, case.factor_BNR, case.noise_B)

    for b in range(4):
        at = slice(b, b + 1)
        alone = case.loss(term, case.factor_BNR[at], case.noise_B[at], at)
        torch.testing.assert_close(alone[0], together_B[b], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_unitary_rotations_of_the_factor_change_nothing(term: str) -> None:
    case = Case(11)
    unitary_RR = torch.linalg.qr(case.factor_BNR[0, :R])[0]

    value_B = case.loss(term, case.factor_BNR @ unitary_RR, case.noise_B)

    torch.testing.assert_close(value_B, case.loss(term, case.factor_BNR, case.noise_B))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_poisoned_scene_is_nonfinite_and_leaves_the_others_alone(
    term: str, poison: float
) -> None:
    case = Case(12)
    factor = case.factor_BNR.clone()
    factor[1, 0, 0] = poison

    value_B = case.loss(term, factor, case.noise_B)

    assert value_B.isfinite().tolist() == [True, False, True, True]


def test_the_ring_is_finite_for_absent_sources_and_contrast_rewards_the_truth() -> None:
    config = SIZES["tiny"]
    scenes = draw_scenes(config, 64, stream_generator(0, "train", trial_seed=0))
    ring_BNKP = ring_steering(scenes.positions_BK3, config)
    true_BNR = torch.nn.functional.pad(scenes.factor_BNK, (0, 1))
    wrong_BNR = true_BNR.roll(1, 0)

    def contrast(factor_BNR: Tensor) -> Tensor:
        return peak_contrast(
            factor_BNR,
            scenes.noise_B,
            steering_BNK=scenes.steering_BNK,
            ring_BNKP=ring_BNKP,
            mask_BK=scenes.source_mask_BK,
        )

    assert torch.view_as_real(ring_BNKP).isfinite().all()
    torch.testing.assert_close(ring_BNKP.abs(), torch.ones_like(ring_BNKP.abs()))
    # 1/side rad is about the half-power half-width: the ring keeps less than 0.8 of the peak.
    match_BKP = torch.einsum("bnk,bnkp->bkp", scenes.steering_BNK.conj(), ring_BNKP).abs() / 36
    assert match_BKP[scenes.source_mask_BK].square().mean() < 0.8
    assert contrast(true_BNR).median() < 0.2
    assert contrast(wrong_BNR).median() > 0.4
    torch.testing.assert_close(contrast(torch.zeros_like(true_BNR)), torch.full((64,), 0.5))


def test_terms_that_share_their_gram_matrix_equal_those_that_do_not() -> None:
    case = Case()
    factor = case.factor_BNR.requires_grad_()
    noise = case.noise_B.requires_grad_()
    solved = Solved.of(factor, noise, case.label_BNK)
    label = (case.label_BNK, case.label_noise_B)
    shared = (
        covariance_error(factor, noise, *label, gram_BRR=solved.gram_BRR)
        + gaussian_nll(factor, noise, *label, solved=solved)
        + subspace_alignment(factor, case.label_BNK, case.mask_BK, gram_BRR=solved.gram_BRR)
        + peak_contrast(
            factor,
            noise,
            steering_BNK=case.label_BNK,
            ring_BNKP=case.ring_BNKP,
            mask_BK=case.mask_BK,
            solved=solved,
        )
    )
    own = torch.stack([case.loss(term, factor, noise) for term in TERMS]).sum(0)

    torch.testing.assert_close(shared, own)
    for found, expected in zip(
        torch.autograd.grad(shared.sum(), (factor, noise)),
        torch.autograd.grad(own.sum(), (factor, noise)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
