"""Cramér-Rao bounds against each other, maximum likelihood, and the figures measured before.

Shapes: N elements, M antennas, L codes, T snapshots a code, K sources, X = 3K positions, Y = 4K + 1
parameters (positions, powers, σ²), R Monte-Carlo runs.
"""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2
from torch.func import jacfwd, vmap

from models.ris.scene.scenes import (
    SIZES,
    direction,
    draw_installation,
    draw_scenes,
    element_positions,
    steering,
)
from models.ris.truth import bounds
from models.ris.truth.bounds import (
    bound_deviations,
    deterministic_bound,
    efficient_errors_m,
    position_bound_m,
    stochastic_bound,
    subspace_floor,
)
from tests.support.fisher_reference import (
    UNIT,
    draw_snapshots,
    information,
    placed,
    score,
    seeded,
    truth,
    two_sources,
)

FULL = SIZES["full"]


def least_relative_eigenvalue(larger_BXX, smaller_BXX):
    """Least eigenvalue of L⁻¹ (larger) L⁻ᴴ with smaller = L Lᴴ."""
    L_BXX = torch.linalg.cholesky(smaller_BXX)
    half_BXX = torch.linalg.solve_triangular(L_BXX, larger_BXX, upper=False)
    whitened_BXX = torch.linalg.solve_triangular(L_BXX, half_BXX.mT, upper=False)
    return torch.linalg.eigvalsh(whitened_BXX)[..., 0]


def test_the_two_bounds_meet_at_high_snr():
    config = replace(UNIT, max_sources=3)
    ratios = []

    for snr_db in (30, 40, 50):
        drawn = draw_scenes(config, 20, seeded(5))
        scenes = replace(drawn, snr_db_B=torch.full((20,), float(snr_db)))
        stochastic = bound_deviations(stochastic_bound(scenes, config))
        deterministic = bound_deviations(deterministic_bound(scenes, config))
        ratio = (stochastic / deterministic).square()
        ratios.append((ratio[scenes.source_mask_BK] - 1).abs().max().item())

    # The models differ by σ² relative to the weakest of what is seen: a tenth every 10 dB.
    assert ratios[0] / ratios[1] == pytest.approx(10, rel=0.3)
    assert ratios[1] / ratios[2] == pytest.approx(10, rel=0.3)
    assert ratios[2] < 0.01


@pytest.mark.parametrize("snr_db", [-10, 0, 20])
def test_under_one_code_one_source_is_never_bounded_lower_by_gaussian_symbols(snr_db):
    # With one code the power has nothing to say on the position, so Stoica and Nehorai's order
    # C_sto >= C_det holds in the matrix sense; P must be free, hence one source.
    config = replace(UNIT, codes=1, antennas=12, snapshots=1000)
    wall = draw_installation(config, seeded(), batch=20)
    scenes = placed(config, [[[0.4, 0.2, 0.5]]] * 20, snr_db=snr_db, wall=wall)

    least_B = least_relative_eigenvalue(
        stochastic_bound(scenes, config), deterministic_bound(scenes, config)
    )

    # K = 1: exactly 1 + σ²/(p ‖v‖²) = 1 + 1/(M SNR) times.
    snr = 10 ** (snr_db / 10)
    torch.testing.assert_close(
        least_B, torch.full((20,), 1 + 1 / (12 * snr)).double(), rtol=1e-6, atol=0
    )
    assert (least_B > 1).all()


def test_uncorrelated_sources_of_lasting_powers_may_lower_the_stochastic_bound():
    # What Gaussian symbols know, and free ones do not: P is diagonal and the same under all codes.
    # It counts where one antenna is left over and noise is as strong as the sources; measured 0.44
    # to 1.30 times the deterministic deviation.
    config = replace(UNIT, antennas=3)
    wall = draw_installation(config, seeded(), batch=50)
    scenes = placed(config, [[[0.5, 0.2, 0.4], [-0.3, -0.1, 0.6]]] * 50, snr_db=0, wall=wall)

    ratio = bound_deviations(stochastic_bound(scenes, config)) / bound_deviations(
        deterministic_bound(scenes, config)
    )

    assert ratio.min() < 0.7


def test_with_as_many_sources_as_antennas_only_the_stochastic_bound_is_finite():
    config = replace(UNIT, antennas=2)
    scenes = two_sources(20, config)

    stochastic = stochastic_bound(scenes, config)
    deterministic = deterministic_bound(scenes, config)

    assert stochastic.isfinite().all()
    assert torch.equal(deterministic[0], torch.diag(torch.full((6,), torch.inf)).double())
    assert position_bound_m(deterministic, scenes).isinf().all()
    assert subspace_floor(deterministic, scenes, config).isinf().all()


def test_relabelling_the_sources_permutes_the_bounds():
    scenes = two_sources(5)
    symbols_BLKT = torch.randn(1, 8, 2, 1, dtype=torch.complex64, generator=seeded(2))
    swapped = replace(
        scenes, positions_BK3=scenes.positions_BK3.flip(1), powers_BK=scenes.powers_BK.flip(1)
    )
    order = torch.tensor([3, 4, 5, 0, 1, 2])

    for plain, relabelled in (
        (stochastic_bound(scenes, UNIT), stochastic_bound(swapped, UNIT)),
        (
            deterministic_bound(scenes, UNIT, symbols_BLKT),
            deterministic_bound(swapped, UNIT, symbols_BLKT.flip(2)),
        ),
    ):
        # Another order of sums and of pivots: rounding amplified by a condition below 1e5.
        expected = plain[:, order][:, :, order]
        torch.testing.assert_close(relabelled, expected, rtol=1e-8, atol=1e-14)
        torch.testing.assert_close(
            subspace_floor(relabelled, swapped, UNIT), subspace_floor(plain, scenes, UNIT)
        )


def test_an_absent_source_changes_nothing_for_those_present():
    both = two_sources(5)
    alone = placed(UNIT, both.positions_BK3[:, :1], snr_db=5, wall=both.installation)
    masked = replace(
        both,
        powers_BK=torch.tensor([[1.0, 0.0]]),
        positions_BK3=torch.cat((both.positions_BK3[:, :1], torch.full((1, 1, 3), torch.nan)), 1),
        source_mask_BK=torch.tensor([[True, False]]),
    )
    symbols_BLKT = torch.randn(1, 8, 2, 1, dtype=torch.complex64, generator=seeded(2))

    found = (
        stochastic_bound(masked, UNIT),
        deterministic_bound(masked, UNIT),
        deterministic_bound(masked, UNIT, symbols_BLKT),
    )
    expected = (
        stochastic_bound(alone, UNIT),
        deterministic_bound(alone, UNIT),
        deterministic_bound(alone, UNIT, symbols_BLKT[:, :, :1]),
    )

    for bound_BXX, bound_B33 in zip(found, expected, strict=True):
        # Blocked sums of other sizes: rounding amplified by a condition below 1e4.
        torch.testing.assert_close(bound_BXX[:, :3, :3], bound_B33, rtol=1e-10, atol=0)
        assert bound_BXX[:, 3:].isnan().all() and bound_BXX[:, :, 3:].isnan().all()
        assert position_bound_m(bound_BXX, masked).isnan().tolist() == [[False, True]]
        torch.testing.assert_close(
            subspace_floor(bound_BXX, masked, UNIT), subspace_floor(bound_B33, alone, UNIT)
        )


@pytest.mark.parametrize("is_shared", [True, False])
def test_bounds_are_blind_to_the_batch_and_need_no_gradients(is_shared, monkeypatch):
    wall = draw_installation(UNIT, seeded()) if is_shared else None
    scenes = draw_scenes(UNIT, 7, seeded(1), installation=wall)

    def everything():
        bound_BXX = stochastic_bound(scenes, UNIT)
        floor_B = subspace_floor(bound_BXX, scenes, UNIT)
        return bound_BXX, deterministic_bound(scenes, UNIT), floor_B

    whole = everything()
    monkeypatch.setattr(bounds, "_CHUNK_BYTES", 1)
    with torch.inference_mode():
        one_by_one = everything()

    for a, b in zip(whole, one_by_one, strict=True):
        assert a.dtype == torch.float64
        # Another batch is another order of sums, amplified by a condition below 1e6.
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12, equal_nan=True)


def test_maximum_likelihood_reaches_the_bound():
    config = replace(UNIT, codes=32)
    wall = draw_installation(config, seeded())
    scenes = placed(config, [[[0.3, 0.1, 0.4]]], snr_db=20, wall=wall)
    runs, alpha_Y = 150, truth(scenes)
    y_RLM = draw_snapshots(scenes, runs, seeded(8), config)
    found_RY = alpha_Y.expand(runs, 5)

    def step(alpha_Y, y_LM):
        score_Y = score(alpha_Y, y_LM, scenes, config)
        return torch.linalg.solve(information(alpha_Y, scenes, 0, config), score_Y)

    # The curvature observed can be twice the expected one (few draws of |s|²), where whole steps
    # would overshoot for ever.
    for _ in range(12):
        step_RY = vmap(step)(found_RY, y_RLM)
        # Scoring in (φ, θ, r, log p, log σ²): a power stays positive.
        powers_R2 = found_RY[:, 3:] * (0.7 * step_RY[:, 3:] / found_RY[:, 3:]).exp()
        found_RY = torch.cat((found_RY[:, :3] + 0.7 * step_RY[:, :3], powers_R2), dim=1)

    deviation_3 = bound_deviations(stochastic_bound(scenes, config))[0, 0]
    # Converged: what is left moves a root mean square by less than 1 %.
    assert (step_RY[:, :3] / deviation_3).abs().max() < 1e-2
    ratio_3 = ((found_RY - alpha_Y)[:, :3] / deviation_3).square().mean(0)
    # R times the ratio is chi-square of R degrees; 1e-4 on each side. The bound is reached from
    # above as codes are added: over 5 seeds the mean square exceeds it by 15 % with 16, by 8 % with
    # 32, of the interval's 49 %.
    low, high = chi2.ppf(1e-4, runs) / runs, chi2.ppf(1 - 1e-4, runs) / runs
    assert (low < ratio_3).all() and (ratio_3 < high).all()


# At 1 GHz, one source, 16 codes: φ in degrees, θ in degrees, r in m, measured with another program
# on another wall. It scales exactly as 1/√SNR, so it bounds deterministic symbols.
TABLE = {
    (2.0, -5): (0.87, 0.69, 0.16),
    (2.0, 5): (0.28, 0.22, 0.051),
    (2.0, 20): (0.049, 0.039, 0.009),
    (10.0, -5): (0.77, 0.61, 3.8),
    (10.0, 5): (0.24, 0.19, 1.2),
    (10.0, 20): (0.043, 0.034, 0.21),
}


@pytest.mark.parametrize(("range_m", "snr_db"), TABLE)
def test_bounds_stand_where_the_problem_was_measured(range_m, snr_db):
    wall = draw_installation(FULL, seeded(), batch=15)
    scenes = placed(FULL, [[[0.6, 0.3, range_m]]] * 15, snr_db=snr_db, wall=wall)

    deviations = [
        bound_deviations(bound(scenes, FULL))[:, 0].median(0).values
        for bound in (stochastic_bound, deterministic_bound)
    ]

    # Walls and directions differ; the direction of the table is not on record.
    for azimuth_rad, elevation_rad, range_error_m in deviations:
        found = (azimuth_rad.rad2deg(), elevation_rad.rad2deg(), range_error_m)
        assert [float(x) for x in found] == pytest.approx(TABLE[range_m, snr_db], rel=0.35)


def test_the_floor_is_the_subspace_error_to_second_order_in_errors_of_the_bound():
    wall = draw_installation(UNIT, seeded())
    close_BK3 = [[[0.5, 0.2, 0.35], [0.1, -0.1, 0.7]]]
    scenes = placed(UNIT, close_BK3, snr_db=10, wall=wall)
    bound_BXX = stochastic_bound(scenes, UNIT)

    floor = subspace_floor(bound_BXX, scenes, UNIT)[0]

    def columns(eta_X):
        elements_N3 = element_positions(UNIT).double()
        return steering(eta_X.reshape(2, 3), elements_N3, wavelength_m=UNIT.wavelength_m)

    eta_X = truth(scenes)[:6]
    Q_NK = torch.linalg.qr(columns(eta_X)).Q

    def error(eta_X):  # 1 − ‖Qᴴ U‖²/K, U any basis of the span
        A_NK = columns(eta_X)
        seen_KK = Q_NK.mH @ A_NK
        return 1 - torch.linalg.solve(A_NK.mH @ A_NK, seen_KK.mH @ seen_KK).trace().real / 2

    hessian_XX = jacfwd(jacfwd(error))(eta_X)
    # ε and its gradient are 0 at the truth. Float64, over curvatures of some 10⁴ that cancel.
    torch.testing.assert_close(floor, (hessian_XX @ bound_BXX[0]).trace() / 2, rtol=1e-9, atol=0)


def test_the_bound_in_metres_is_that_of_the_cartesian_position():
    scenes = two_sources(5)
    bound_BXX = stochastic_bound(scenes, UNIT)

    error_BK = position_bound_m(bound_BXX, scenes)

    for k in range(2):
        position_3 = scenes.positions_BK3[0, k].double()
        slope_33 = jacfwd(lambda p_3: p_3[2] * direction(p_3[0], p_3[1]))(position_3)
        block_33 = bound_BXX[0, 3 * k : 3 * k + 3, 3 * k : 3 * k + 3]
        expected = (slope_33 @ block_33 @ slope_33.T).trace().sqrt()
        # The cosine of a float32 angle is taken in float64 on both sides.
        torch.testing.assert_close(error_BK[0, k], expected, rtol=1e-12, atol=0)


def test_an_efficient_methods_errors_are_normal_in_cartesian_coordinates():
    scenes = two_sources(5)
    bound_BXX = stochastic_bound(scenes, UNIT)

    error_BKD = efficient_errors_m(
        bound_BXX, scenes, draws=20_000, generator=torch.Generator().manual_seed(0)
    )

    generator = torch.Generator().manual_seed(1)
    for k in range(2):
        position_3 = scenes.positions_BK3[0, k].double()
        slope_33 = jacfwd(lambda p_3: p_3[2] * direction(p_3[0], p_3[1]))(position_3)
        block_33 = bound_BXX[0, 3 * k : 3 * k + 3, 3 * k : 3 * k + 3]
        root_33 = torch.linalg.cholesky(block_33)
        normal_D3 = torch.randn(20_000, 3, dtype=torch.float64, generator=generator)
        expected_D = (normal_D3 @ root_33.T @ slope_33.T).norm(dim=-1)
        # A quantile of 20,000 draws errs by 1 %, by 2 % in the tail; two are compared.
        for share in (0.1, 0.5, 0.9):
            assert float(error_BKD[0, k].quantile(share)) == pytest.approx(
                float(expected_D.quantile(share)), rel=0.05
            )
    rms_BK = error_BKD.square().mean(-1).sqrt()
    torch.testing.assert_close(rms_BK, position_bound_m(bound_BXX, scenes), rtol=0.03, atol=0)


def test_an_efficient_methods_errors_are_unknown_where_the_bound_is():
    scenes = two_sources(5)
    masked = replace(scenes, source_mask_BK=torch.tensor([[True, False]]))
    generator = torch.Generator().manual_seed(0)

    error_BKD = efficient_errors_m(
        stochastic_bound(masked, UNIT), masked, draws=5, generator=generator
    )
    infinite_BXX = torch.diag_embed(torch.full((1, 6), torch.inf, dtype=torch.float64))
    endless_BKD = efficient_errors_m(infinite_BXX, scenes, draws=5, generator=generator)

    assert error_BKD[0, 0].isfinite().all()
    assert error_BKD[0, 1].isnan().all()
    assert endless_BKD.isposinf().all()
