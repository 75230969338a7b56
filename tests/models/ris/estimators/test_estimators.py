"""Ridge matching against a dense oracle, and the estimators against the reference figures.

Shapes: B scenes, N elements, M antennas, L codes, K sources.
"""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch

import models.ris.estimators.ridge as estimators
from models.ris.estimators.ridge import RidgeMatching, back_projection, music_per_code
from models.ris.scene.scenes import (
    SIZES,
    Installation,
    draw_installation,
    draw_scenes,
    stream_generator,
)
from models.ris.truth.metric import (
    metric_db,
    position_error_m,
    position_subspace_error,
    subspace_error,
)
from tests.support.drawn_scenes import drawn, seeded

UNIT, TINY = SIZES["unit"], SIZES["tiny"]
SMALL = replace(UNIT, side=3, antennas=2, codes=3)


def in_double(installation):
    return Installation(
        installation.channel_BMN.to(torch.complex128), installation.codes_BLN.to(torch.complex128)
    )


def label(scenes):
    return scenes.factor_BNK @ scenes.factor_BNK.mH


@pytest.fixture(scope="module")
def tiny():
    """The frozen validation scenes of the tiny size, 400 of them."""
    wall = draw_installation(TINY, stream_generator(TINY.problem_seed, "installation"))
    generator = stream_generator(TINY.problem_seed, "validation")
    return draw_scenes(TINY, 400, generator, installation=wall)


@pytest.fixture(scope="module")
def tiny_ridge(tiny):
    return RidgeMatching.fit(TINY, tiny.installation)


def dense_ridge(sample_LMM, sensing_LMN, loading):
    """The N² complex unknowns by least squares on the stacked system [𝒜; √μ I]."""
    A = np.concatenate([np.kron(phi, phi.conj()) for phi in sensing_LMN])
    N2 = A.shape[1]
    mu = loading * np.mean(np.sum(np.abs(A) ** 2, axis=1))
    stacked = np.concatenate((A, sqrt(mu) * np.eye(N2)))
    right = np.concatenate((sample_LMM.reshape(-1), np.zeros(N2)))
    n = round(sqrt(N2))
    R_NN = np.linalg.lstsq(stacked, right, rcond=None)[0].reshape(n, n)
    return R_NN * n / np.trace(R_NN).real


@pytest.mark.parametrize("loading", [1e-2, 1.0])
@pytest.mark.parametrize("is_shared", [True, False])
def test_ridge_matching_solves_the_dense_least_squares_problem(loading, is_shared):
    scenes = drawn(SMALL, 4, is_shared=is_shared)
    installation = in_double(scenes.installation)
    sample_BLMM = scenes.sample_BLMM.to(torch.complex128)

    R_BNN = RidgeMatching(installation, loading=loading)(sample_BLMM)

    sensing = installation.sensing_BLMN.expand(4, -1, -1, -1).numpy()
    for b in range(4):
        expected_NN = dense_ridge(sample_BLMM[b].numpy(), sensing[b], loading)
        # float64 with a condition below 1/loading · 12 unknowns = 1e3: 1e-13, times the trace 9.
        np.testing.assert_allclose(R_BNN[b].numpy(), expected_NN, rtol=0, atol=1e-11)


def test_ridge_matching_in_single_precision_errs_by_rounding_only(tiny):
    sample_BLMM = tiny.sample_BLMM[:50]

    single = RidgeMatching(tiny.installation, loading=0.01)(sample_BLMM)

    double = RidgeMatching(in_double(tiny.installation), loading=0.01)(
        sample_BLMM.to(torch.complex128)
    )
    error_B = (single - double).abs().square().sum((-2, -1)).sqrt()
    # Largest eigenvalue 12 of the mean, loading 0.01: condition 300 at best rounded to 2⁻²⁴ gives
    # 2e-5; measured 3e-6.
    assert (error_B / double.abs().square().sum((-2, -1)).sqrt()).max() < 2e-5


@pytest.mark.parametrize("is_shared", [True, False])
def test_ridge_matching_is_hermitian_of_trace_n_and_blind_to_scale_and_chunks(
    is_shared, monkeypatch
):
    scenes = drawn(UNIT, 7, is_shared=is_shared)
    matching = RidgeMatching(scenes.installation, loading=0.1)

    R_BNN = matching(scenes.sample_BLMM)
    monkeypatch.setattr(estimators, "_CHUNK_BYTES", 1)
    one_by_one = matching(5 * scenes.sample_BLMM)

    assert torch.equal(R_BNN, R_BNN.mH)
    trace_B = R_BNN.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    torch.testing.assert_close(trace_B, torch.full((7,), float(UNIT.elements)))
    # Another batch is another order of float32 sums, amplified by the condition (some 100).
    torch.testing.assert_close(R_BNN, one_by_one, rtol=1e-3, atol=1e-4)


def test_ridge_matching_recovers_the_label_from_many_codes_without_noise():
    # Codes leave the diagonal of R as it is, so the M² entries of one code must determine its N
    # values: 2 antennas see 4 of 9, 4 antennas 16.
    config = replace(SMALL, codes=40, antennas=4)
    wall = draw_installation(config, seeded())
    scenes = draw_scenes(config, 3, seeded(1), installation=wall)
    sensing_BLMN = in_double(wall).sensing_BLMN
    truth_BNN = label(scenes).to(torch.complex128)

    exact_BLMM = sensing_BLMN @ truth_BNN.unsqueeze(1) @ sensing_BLMN.mH
    R_BNN = RidgeMatching(in_double(wall), loading=1e-9)(exact_BLMM)

    # 640 equations for 81 unknowns; what is left is the bias of the loading, 1e-9 over the least
    # nonzero eigenvalue of the operator (above 1e-3 of its mean), times the trace 9.
    torch.testing.assert_close(R_BNN, truth_BNN, rtol=0, atol=1e-5)


def test_fit_takes_the_loading_of_least_error_on_the_ridge_stream(monkeypatch):
    wall = draw_installation(UNIT, stream_generator(UNIT.problem_seed, "installation"))
    streams = []

    def spy(seed, stream, *args, **kwargs):
        streams.append(stream)
        return stream_generator(seed, stream, *args, **kwargs)

    monkeypatch.setattr(estimators, "stream_generator", spy)
    fitted = RidgeMatching.fit(UNIT, wall, loadings=(1e-2, 0.3, 100.0), scenes=300)

    assert streams == ["ridge"]
    scenes = draw_scenes(UNIT, 300, stream_generator(0, "ridge"), installation=wall)
    means = {
        mu: subspace_error(RidgeMatching(wall, loading=mu)(scenes.sample_BLMM), scenes).mean()
        for mu in (1e-2, 0.3, 100.0)
    }
    assert fitted.loading == min(means, key=means.get)
    with pytest.raises(ValueError, match="shared"):
        RidgeMatching.fit(UNIT, draw_installation(UNIT, seeded(), batch=2))


@pytest.mark.parametrize("loading", [0.0, -1.0, float("nan")])
def test_ridge_matching_refuses_a_loading_that_regularises_nothing(loading):
    with pytest.raises(ValueError, match="loading"):
        RidgeMatching(draw_installation(UNIT, seeded()), loading=loading)


def test_a_better_estimate_lowers_the_metric(tiny, tiny_ridge):
    R_BNN = tiny_ridge(tiny.sample_BLMM)
    reference_B = subspace_error(R_BNN, tiny)

    scores = [
        metric_db(subspace_error((1 - w) * R_BNN + w * label(tiny), tiny), reference_B)
        for w in (0.0, 0.2, 0.5, 1.0)
    ]

    assert scores[0] == 0
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < -30


@pytest.mark.acceptance
def test_reference_estimators_stand_where_the_problem_was_measured():
    scenes = drawn(TINY, 400, is_shared=False)  # a wall a scene: no luck of one wall
    back_BNN = back_projection(scenes.sample_BLMM, scenes.installation)
    ridge = RidgeMatching(scenes.installation, loading=0.1)
    positions_BK3 = music_per_code(scenes, TINY)

    back_B = subspace_error(back_BNN, scenes)
    ridge_B = subspace_error(ridge(scenes.sample_BLMM), scenes)
    music_B = position_subspace_error(positions_BK3, scenes, TINY)
    median_m = position_error_m(positions_BK3, scenes).nanmedian().item()

    # Means over 16 walls of 400 scenes. Walls deviate by .009, .010, .034, .6 dB and .03 m; what
    # was first measured on one other wall is two of these away at most: .868, .77, .241, -5.0 dB,
    # .289 m. A scene deviates by .05, .11, .30; three standard errors of 400 are .008, .016, .045,
    # and for the ratio 0.8 dB. A weak reference would give decibels away.
    assert back_B.mean().item() == pytest.approx(0.887, abs=0.008)
    assert ridge_B.mean().item() == pytest.approx(0.780, abs=0.016)
    assert music_B.mean().item() == pytest.approx(0.233, abs=0.045)
    assert metric_db(music_B, ridge_B) == pytest.approx(-5.3, abs=0.8)
    # Three of the median's standard errors 1.25 σ/√600, σ = 0.42 m.
    assert median_m == pytest.approx(0.268, abs=0.064)
