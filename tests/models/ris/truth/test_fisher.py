"""Fisher information against finite differences, its definition, a closed form and Monte Carlo.

Shapes: N elements, M antennas, L codes, T snapshots a code, K sources, X = 3K positions, Y = 4K + 1
parameters (positions, powers, σ²), R Monte-Carlo runs.
"""

from dataclasses import replace
from math import cos, pi, sin, sqrt

import pytest
import torch
from torch.func import jacfwd, vmap

from models.ris.scene.geometry import steering_derivatives
from models.ris.scene.scenes import (
    SIZES,
    Installation,
    direction,
    draw_installation,
    draw_scenes,
    element_positions,
    steering,
)
from models.ris.truth.bounds import deterministic_bound
from models.ris.truth.fisher import stochastic_information
from tests.support.fisher_reference import (
    UNIT,
    draw_snapshots,
    information,
    placed,
    score,
    seeded,
    seen,
    slopes,
    truth,
    two_sources,
)


@pytest.mark.parametrize("size", SIZES)
def test_derivatives_are_the_limits_of_finite_differences(size):
    config = SIZES[size]
    positions_BK3 = draw_scenes(config, 20, seeded()).positions_BK3.double()
    positions_K3 = positions_BK3[positions_BK3.isfinite().all(-1)]
    elements_N3 = element_positions(config).double()
    h = 1e-5

    _, D_NK3 = steering_derivatives(positions_K3, elements_N3, wavelength_m=config.wavelength_m)

    def a(shift_3):
        return steering(positions_K3 + shift_3, elements_N3, wavelength_m=config.wavelength_m)

    for i, shift_3 in enumerate(h * torch.eye(3, dtype=torch.float64)):
        difference_NK = (a(shift_3) - a(-shift_3)) / (2 * h)
        # h²/6 of the third derivative, at most (k D/2)³ = 1.6e4 (full): 2.6e-7, and the rounding
        # of 25 rad over 2h: 3e-10.
        torch.testing.assert_close(D_NK3[..., i], difference_NK, rtol=0, atol=3e-7)

    def each_column(p_K3):  # a source moves its own column only
        return steering(p_K3, elements_N3, wavelength_m=config.wavelength_m).sum(1)

    exact_NK3 = slopes(each_column, positions_K3)
    # Derivatives of up to 25 rad in float64, some dozens of roundings: 25 · 50 · 2⁻⁵³ = 1.4e-13.
    torch.testing.assert_close(D_NK3, exact_NK3, rtol=0, atol=1e-12)


def test_the_derivative_by_range_keeps_its_digits_in_the_far_field():
    elements_N3 = element_positions(UNIT).double()
    far_m = 1e6

    position_13 = torch.tensor([[0.4, 0.3, far_m]]).double()
    _, D_N13 = steering_derivatives(position_13, elements_N3, wavelength_m=UNIT.wavelength_m)
    D_N3 = D_N13[:, 0]

    u_3 = direction(*position_13[0, :2])
    bend_N = (elements_N3.square().sum(-1) - (elements_N3 @ u_3) ** 2) / (2 * far_m**2)
    # The next term of the series is some |q|/r = 1e-7 of it; a difference would err by 1e-3.
    expected_N = 2 * pi / UNIT.wavelength_m * bend_N
    torch.testing.assert_close(D_N3[:, 2].abs(), expected_N, rtol=1e-6, atol=0)


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_stochastic_information_is_its_definition(is_shared):
    config = replace(UNIT, snapshots=3, max_sources=3)
    wall = draw_installation(config, seeded(3), batch=1 if is_shared else 5)
    scenes = draw_scenes(config, 5, seeded(4), installation=wall)

    J_BYY = stochastic_information(scenes, config)

    mask_BK = scenes.source_mask_BK
    present_BY = torch.cat((mask_BK.repeat_interleave(3, 1), mask_BK, mask_BK[:, :1]), dim=1)
    assert len(set(mask_BK.sum(-1).tolist())) > 1
    for b, kept_Y in enumerate(present_BY):
        expected_YY = information(truth(scenes, b), scenes, b, config)
        found_YY = J_BYY[b][kept_Y][:, kept_Y]
        # Condition numbers up to 100 · M (20 dB) square to 1e5 in two inverses: 1e-11, and a
        # margin. Relative to the diagonal, for entries may cancel.
        scale_Y = expected_YY.diagonal().rsqrt()
        torch.testing.assert_close(
            found_YY * scale_Y * scale_Y[:, None],
            3 * expected_YY * scale_Y * scale_Y[:, None],
            rtol=0,
            atol=1e-9,
        )
        assert (J_BYY[b][~kept_Y] == 0).all() and (J_BYY[b][:, ~kept_Y] == 0).all()


def test_the_deterministic_bound_is_that_of_all_unknowns_with_the_symbols_inverted_away():
    scenes = two_sources(10)
    symbols_LKT = torch.randn(8, 2, 2, dtype=torch.complex128, generator=seeded(1))

    bound_XX = deterministic_bound(scenes, UNIT, symbols_LKT.unsqueeze(0))[0]

    alpha_Y = truth(scenes)

    def means(unknowns):
        shape = (2, *symbols_LKT.shape)
        real_LKT, imaginary_LKT = unknowns[6:].reshape(shape)
        mean_LMT = seen(unknowns[:6], scenes, 0) @ torch.complex(real_LKT, imaginary_LKT)
        return torch.view_as_real(mean_LMT).reshape(-1)

    parts = (alpha_Y[:6], symbols_LKT.real.reshape(-1), symbols_LKT.imag.reshape(-1))
    slope = jacfwd(means)(torch.cat(parts))
    expected_XX = torch.linalg.inv(2 / alpha_Y[-1] * slope.T @ slope)[:6, :6]
    # The inverse of 70 unknowns of condition number below 1e6 in float64.
    scale_X = expected_XX.diagonal().sqrt()
    error_XX = (bound_XX - expected_XX) / (scale_X * scale_X[:, None])
    assert error_XX.abs().max() < 1e-9


def test_the_far_field_bound_of_one_source_is_the_textbook_closed_form():
    config = replace(UNIT, antennas=UNIT.elements, codes=2, snapshots=5)
    N, azimuth, elevation, snr_db = config.elements, 0.6, 0.3, 3.0
    identity = Installation(
        sqrt(N) * torch.eye(N, dtype=torch.complex64)[None],
        torch.ones(1, config.codes, N, dtype=torch.complex64),
    )
    scenes = placed(config, [[[azimuth, elevation, 1e6]]], snr_db=snr_db, wall=identity)

    J_YY = stochastic_information(scenes, config)[0]
    known_range = [0, 1, 3, 4]
    angles_22 = torch.linalg.inv(J_YY[known_range][:, known_range])[:2, :2]
    conditional_33 = torch.linalg.inv(deterministic_bound(scenes, config)[0])

    # C = (σ²/2TL p) (1 + σ²/Np) [k² Σ_n (q·∂_iu)(q·∂_ju)]⁻¹, for Φ = I and aᴴ∂a = 0 at the centre;
    # Σ q_y² = Σ q_z² = N (side² − 1)/12 · (λ/2)², i.e. k² times it is N (side² − 1) π²/12.
    c, s = cos(elevation), sin(elevation)
    slopes_2i = torch.tensor([[c * cos(azimuth), 0], [-s * sin(azimuth), c]], dtype=torch.float64)
    curvature_22 = N * (config.side**2 - 1) * pi**2 / 12 * slopes_2i @ slopes_2i.T
    sigma2 = 10 ** (-snr_db / 10)
    exact_22 = sigma2 / 20 * torch.linalg.inv(curvature_22)
    # The curvature left is |q|/r = 2e-7, positions are rounded to 2⁻²⁴ = 6e-8.
    torch.testing.assert_close(angles_22, (1 + sigma2 / N) * exact_22, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        torch.linalg.inv(conditional_33[:2, :2]), exact_22, rtol=1e-6, atol=0
    )


def test_the_information_is_the_covariance_of_the_score():
    scenes, runs = two_sources(10), 1000
    alpha_Y = truth(scenes)
    y_RLM = draw_snapshots(scenes, runs, seeded(7))

    score_RY = vmap(lambda y_LM: score(alpha_Y, y_LM, scenes))(y_RLM)

    J_YY = stochastic_information(scenes, UNIT)[0]
    whitened_RY = torch.linalg.solve_triangular(
        torch.linalg.cholesky(J_YY), score_RY.T, upper=False
    )
    mean_Y, covariance_YY = whitened_RY.mean(1), whitened_RY @ whitened_RY.T / runs
    # 9 means err by 1/√R each; 5 of those is never reached. A score is a quadratic form of some 30
    # Gaussians: its kurtosis exceeds the normal one by up to 3, so a variance errs by √(5/R).
    assert mean_Y.abs().max() < 5 / sqrt(runs)
    assert (covariance_YY - torch.eye(9)).abs().max() < 4 * sqrt(5 / runs)
