"""The metric against its definition in float64, for mixed numbers of sources.

Shapes: B scenes, N elements, K sources, R rank.
"""

from math import sqrt

import numpy as np
import pytest
import torch

from models.ris.scene.scenes import SIZES, draw_installation, draw_scenes
from models.ris.truth.metric import (
    factor_subspace_error,
    metric_db,
    position_error_m,
    position_subspace_error,
    subspace_error,
)

UNIT, TINY = SIZES["unit"], SIZES["tiny"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(config, n):
    return draw_scenes(config, n, seeded(1), installation=draw_installation(config, seeded()))


def label(scenes):
    return scenes.factor_BNK @ scenes.factor_BNK.mH


def random_factor(scenes, rank, seed=0):
    B, N, _ = scenes.steering_BNK.shape
    return torch.randn(B, N, rank, dtype=torch.complex64, generator=seeded(seed))


def numpy_error(R_NN, A_NK):
    """ε from scratch, one scene in float64: SVD basis of the truth, projector of the estimate."""
    K = A_NK.shape[1]
    Q = np.linalg.svd(A_NK.astype(np.complex128), full_matrices=False)[0]
    values, vectors = np.linalg.eigh(R_NN.astype(np.complex128))
    U = vectors[:, np.argsort(values)[::-1][:K]]
    return 1 - np.linalg.norm(Q.conj().T @ U) ** 2 / K


@pytest.mark.parametrize("size", ["unit", "full"])
def test_subspace_error_agrees_with_its_definition_for_mixed_numbers_of_sources(size):
    config = SIZES[size]
    scenes = drawn(config, 40)
    # A factor of higher rank than K, some truth in it, and an indefinite part.
    F_BNR = random_factor(scenes, config.rank) + 2 * scenes.steering_BNK.sum(-1, keepdim=True)
    R_BNN = F_BNR @ F_BNR.mH - 0.5 * torch.eye(config.elements)

    error_B = subspace_error(R_BNN, scenes)

    counts = scenes.source_mask_BK.sum(-1).tolist()
    assert len(set(counts)) == config.max_sources
    expected = [
        numpy_error(R.numpy(), A[:, :k].numpy())
        for R, A, k in zip(R_BNN, scenes.steering_BNK, counts, strict=True)
    ]
    # Eigenvectors in float32 err by 2⁻²³ N / relative gap (above 1e-2 here), ε by the same.
    np.testing.assert_allclose(error_B.numpy(), expected, rtol=0, atol=1e-3)
    assert np.abs(error_B.numpy() - expected).mean() < 1e-5


@pytest.mark.parametrize("size", ["unit", "tiny", "full"])
def test_factor_error_is_the_error_of_its_covariance(size):
    config = SIZES[size]
    scenes = drawn(config, 40)
    F_BNR = random_factor(scenes, config.rank)
    R_BNN = F_BNR @ F_BNR.mH + 0.3 * torch.eye(config.elements)

    # Both round in float32; gaps between random eigenvalues above 1e-3 amplify 2⁻²³ · N.
    torch.testing.assert_close(
        factor_subspace_error(F_BNR, scenes), subspace_error(R_BNN, scenes), rtol=0, atol=1e-3
    )


def test_error_is_zero_for_the_truth_and_one_for_nothing_of_it():
    scenes = drawn(UNIT, 30)
    N = UNIT.elements
    projector_BNN = torch.linalg.pinv(scenes.steering_BNK)
    projector_BNN = torch.eye(N) - scenes.steering_BNK @ projector_BNN

    # Correlation up to 0.95 and 6 dB leave a second eigenvalue above 1e-3 N: 2⁻²³ N / 1e-3 N.
    assert subspace_error(label(scenes), scenes).max() < 1e-4
    assert factor_subspace_error(scenes.factor_BNK, scenes).max() < 1e-4
    assert subspace_error(projector_BNN, scenes).min() > 1 - 1e-4
    assert (factor_subspace_error(torch.zeros_like(scenes.factor_BNK), scenes) == 1).all()


def test_a_factor_without_enough_directions_misses_the_others():
    scenes = drawn(UNIT, 200)
    one_BNR = torch.zeros_like(random_factor(scenes, 3))
    one_BNR[..., 0] = scenes.steering_BNK[..., 0]

    error_B = factor_subspace_error(one_BNR, scenes)

    # One direction of K, and it is a true one: ε = 1 − 1/K. Rounding as above.
    count_B = scenes.source_mask_BK.sum(-1)
    torch.testing.assert_close(error_B, 1 - 1 / count_B, rtol=0, atol=1e-4)


def test_error_is_blind_to_scale_noise_and_rotations_of_the_factor():
    scenes = drawn(UNIT, 30)
    F_BNR = random_factor(scenes, 3)
    W_RR = torch.linalg.qr(torch.randn(3, 3, dtype=torch.complex64, generator=seeded(5))).Q

    reference_B = factor_subspace_error(F_BNR, scenes)

    for other_BNR in (1e3 * F_BNR, 1e-3 * F_BNR, F_BNR @ W_RR, F_BNR.flip(-1)):
        torch.testing.assert_close(
            factor_subspace_error(other_BNR, scenes), reference_B, rtol=0, atol=1e-4
        )


def test_a_random_subspace_misses_all_but_k_of_n():
    tiny = drawn(TINY, 400)

    error_B = factor_subspace_error(random_factor(tiny, TINY.max_sources), tiny)

    expected = 1 - (tiny.source_mask_BK.sum(-1) / TINY.elements).mean()
    # ‖Qᴴ U‖²/K of a random subspace deviates by about 1/N √(1/K) <= 0.028; five standard errors.
    assert error_B.mean().item() == pytest.approx(float(expected), abs=5 * 0.028 / sqrt(len(tiny)))


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_an_estimate_that_is_not_finite_scores_nan_and_harms_no_other(poison):
    scenes = drawn(UNIT, 3)
    F_BNR = random_factor(scenes, 3)
    R_BNN = F_BNR @ F_BNR.mH
    sick_BNR, sick_BNN = F_BNR.clone(), R_BNN.clone()
    sick_BNR[1, 2, 0] = poison
    sick_BNN[1, 2, 0] = poison

    for sick_B, well_B in (
        (factor_subspace_error(sick_BNR, scenes), factor_subspace_error(F_BNR, scenes)),
        (subspace_error(sick_BNN, scenes), subspace_error(R_BNN, scenes)),
    ):
        assert sick_B.isnan().tolist() == [False, True, False]
        torch.testing.assert_close(sick_B[[0, 2]], well_B[[0, 2]])
        assert np.isnan(metric_db(sick_B, well_B))


def test_metric_is_the_ratio_of_mean_errors_in_decibels():
    reference_B = torch.tensor([0.5, 1.0])

    assert metric_db(reference_B, reference_B) == 0
    # float32 inputs: 1e-7 relative is 4e-7 dB.
    assert metric_db(reference_B / 10, reference_B) == pytest.approx(-10, abs=1e-5)
    assert metric_db(torch.tensor([0.3, 0.15]), reference_B) == pytest.approx(
        10 * np.log10(0.225 / 0.75), abs=1e-5
    )
    assert -70 < metric_db(torch.zeros(2), reference_B) < -60, "finite also for a perfect estimate"


def test_position_errors_are_euclidean_and_blind_to_the_order_of_sources():
    scenes = drawn(SIZES["full"], 30)
    shuffled_BK3 = scenes.positions_BK3.clone()
    moved_BK = torch.full(shuffled_BK3.shape[:2], torch.nan)
    for b, k in enumerate(scenes.source_mask_BK.sum(-1).tolist()):
        shuffled_BK3[b, :k] = shuffled_BK3[b, :k].flip(0)
        shuffled_BK3[b, 0, 2] += 0.01
        moved_BK[b, :k] = 0
        moved_BK[b, k - 1] = 0.01

    error_BK = position_error_m(shuffled_BK3, scenes)

    # Along the ray the range error is the whole error. Float32 ranges up to 15 m: 1e-6 m; cdist in
    # float64 forms squares: √(225 · 2⁻⁵²) = 2e-7 m.
    torch.testing.assert_close(error_BK, moved_BK, rtol=0, atol=5e-6, equal_nan=True)


def test_true_positions_span_the_true_subspace():
    scenes = drawn(SIZES["full"], 30)

    error_B = position_subspace_error(
        scenes.positions_BK3.flip(1).nan_to_num(1.0), scenes, SIZES["full"]
    )
    exact_B = position_subspace_error(scenes.positions_BK3, scenes, SIZES["full"])

    # 1/r was inverted once more: 2⁻²³ of a phase of 25 rad, over the conditioning of A.
    assert exact_B.max() < 1e-5
    assert (error_B[~scenes.source_mask_BK.all(-1)] > 1e-3).all(), "padding is no source"
