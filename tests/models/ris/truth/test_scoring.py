"""Scores: what counts as found, and what its errors are compared with.

Shapes: B scenes, K sources, S sources that are present.
"""

from dataclasses import replace
from math import sqrt

import pytest
import torch

from models.ris.scene.scenes import SIZES, draw_installation, draw_scenes
from models.ris.truth.scoring import Bounds, Errors, errors_of

UNIT = SIZES["unit"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(UNIT, 40, seeded(1), installation=draw_installation(UNIT, seeded()))


@pytest.fixture(scope="module")
def bounds(scenes):
    return Bounds.of(scenes, UNIT)


def with_bounds(bounds, *, angle_rad):
    """The same bounds of distance, another one of the angle."""
    return replace(bounds, angle_BK=torch.full_like(bounds.angle_BK, angle_rad))


def turned(scenes, angle_rad):
    """The true positions, turned in elevation: the angle between directions is the turn."""
    positions_BK3 = scenes.positions_BK3.clone()
    positions_BK3[..., 1] += angle_rad
    return positions_BK3


def test_the_truth_has_no_error_in_any_order(scenes, bounds):
    swapped_BK3 = scenes.positions_BK3.flip(1)
    is_single_B = ~scenes.source_mask_BK[:, 1]
    swapped_BK3[is_single_B] = scenes.positions_BK3[is_single_B]

    errors = errors_of(swapped_BK3, scenes, bounds, UNIT)

    assert len(errors.error_S) == int(scenes.source_mask_BK.sum())
    # Float32 coordinates of some 0.9 m, subtracted.
    assert errors.error_S.max() < 1e-6
    assert errors.angle_S.max() < 1e-6
    assert not errors.is_outlier_S.any()
    assert errors.median_m == pytest.approx(0, abs=1e-6)


def test_an_angle_is_as_large_as_the_turn_and_a_range_as_the_step(scenes, bounds):
    positions_BK3 = turned(scenes, 0.02)
    positions_BK3[..., 2] += 0.001

    errors = errors_of(positions_BK3, scenes, bounds, UNIT)

    # So small that no assignment changes; float32 angles err by 1e-7.
    torch.testing.assert_close(
        errors.angle_S, torch.full_like(errors.angle_S, 0.02), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        errors.range_S, torch.full_like(errors.range_S, 1e-3), rtol=1e-3, atol=0
    )
    assert errors.angle_rmse_deg == pytest.approx(0.02 * 57.29578, rel=1e-4)
    assert errors.range_rmse_m == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("angle_rad", "bound_rad", "is_outlier"),
    [
        # Half a beamwidth of 4 elements is 0.886/4 = 0.22 rad.
        (0.20, 1e-3, False),
        (0.24, 1e-3, True),
        (0.24, 0.06, False),
        (0.35, 0.06, True),
    ],
    ids=["within the beam", "beyond both", "within 5 deviations", "beyond 5 deviations"],
)
def test_an_outlier_is_beyond_five_deviations_and_beyond_half_a_beam(
    scenes, bounds, angle_rad, bound_rad, is_outlier
):
    single = scenes.source_mask_BK.sum(-1) == 1
    some = scenes.select(single)
    known = Bounds(*(value[single] for value in vars(bounds).values()))

    errors = errors_of(turned(some, angle_rad), some, with_bounds(known, angle_rad=bound_rad), UNIT)

    assert errors.outlier_rate == float(is_outlier)
    assert errors.beyond_beam_rate == float(angle_rad > 0.886 / UNIT.side)


def test_errors_of_twice_the_bound_have_the_ratio_two(scenes, bounds):
    single = scenes.source_mask_BK.sum(-1) == 1
    some = scenes.select(single)
    known = Bounds(*(value[single] for value in vars(bounds).values()))
    positions_BK3 = some.positions_BK3.clone()
    # Along the range the distance is the step itself.
    positions_BK3[..., 2] += 2 * known.distance_BK.float()

    errors = errors_of(positions_BK3, some, known, UNIT)

    assert errors.ratio == pytest.approx(2, rel=1e-4)


def test_outliers_are_left_out_of_rmse_and_counted_in_the_median(scenes, bounds):
    positions_BK3 = scenes.positions_BK3.clone()
    positions_BK3[:20, :, 0] += 1.0

    errors = errors_of(positions_BK3, scenes, with_bounds(bounds, angle_rad=1e-3), UNIT)

    first_S = errors.scene_S < 20
    # Turning a pair by a radian may bring one source near the other's place.
    assert errors.is_outlier_S[first_S].double().mean() > 0.8
    assert not errors.is_outlier_S[~first_S].any()
    found = errors.select(~errors.is_outlier_S)
    assert errors.rmse_m == pytest.approx(float(found.error_S.square().mean().sqrt()))
    assert errors.median_m > found.median_m


def test_the_medians_deviation_is_that_of_independent_scenes():
    generator = seeded(3)
    n = 2000
    error_S = torch.rand(n, generator=generator, dtype=torch.float64)
    nothing = torch.zeros_like(error_S)
    errors = Errors(
        error_S=error_S,
        angle_S=nothing,
        range_S=nothing,
        bound_S=nothing,
        angle_bound_S=nothing,
        is_outlier_S=nothing.bool(),
        is_beyond_beam_S=nothing.bool(),
        scene_S=torch.arange(n),
    )

    # Of uniform draws 1/(2√n) = .0112; 200 resamplings tell it to 5 %, the estimate itself to some
    # n^(-1/4) = 15 %.
    assert errors.median_deviation_m() == pytest.approx(1 / (2 * sqrt(n)), rel=0.4)


def test_sets_joined_keep_their_scenes_apart(scenes, bounds):
    errors = errors_of(scenes.positions_BK3, scenes, bounds, UNIT)

    both = Errors.joined([errors, errors])

    assert len(both.error_S) == 2 * len(errors.error_S)
    assert both.scene_S.unique().numel() == 2 * len(scenes)


def test_without_powers_or_snr_there_is_no_bound_and_half_a_beam_decides(scenes):
    some = replace(scenes, snr_db_B=torch.full_like(scenes.snr_db_B, torch.nan))

    unknown = Bounds.of(some, UNIT)
    near = errors_of(turned(some, 0.2), some, unknown, UNIT)

    assert unknown.distance_BK.isnan().all()
    assert unknown.epsilon_B.isnan().all()
    assert near.ratio != near.ratio
    # All are turned alike, so that none is nearer to another's place than half of the beam.
    assert near.outlier_rate < 0.2


def test_bounds_are_what_the_information_says(scenes, bounds):
    from models.ris.truth.bounds import bound_deviations, position_bound_m, stochastic_bound

    bound_BXX = stochastic_bound(scenes, UNIT)
    deviations_BK3 = bound_deviations(bound_BXX)
    elevation_BK = scenes.positions_BK3[..., 1].double()
    expected_BK = (
        (deviations_BK3[..., 0] * elevation_BK.cos()).square() + deviations_BK3[..., 1].square()
    ).sqrt()

    torch.testing.assert_close(bounds.angle_BK, expected_BK, equal_nan=True)
    expected_m_BK = position_bound_m(bound_BXX, scenes)
    torch.testing.assert_close(bounds.distance_BK, expected_m_BK, equal_nan=True)
    assert (bounds.epsilon_B <= 1).all()
