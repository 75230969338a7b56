"""Peaks: found where they are, within the region, apart from each other.

Shapes: B scenes, N elements, K sources, G grid points, X points.
"""

from dataclasses import replace

import pytest
import torch

from models.ris.estimators import peaks
from models.ris.estimators.peaks import EXCLUSION, find_peaks, region, steered_grid, steering_at
from models.ris.estimators.pseudospectra import music_of_covariance, music_of_factor
from models.ris.scene.geometry import as_positions
from models.ris.scene.scenes import SIZES
from models.ris.truth.metric import position_error_m, position_subspace_error
from tests.support.drawn_scenes import drawn, seeded

TINY = SIZES["tiny"]
CPU = torch.device("cpu")


def places(config, n, *, seed=0, margin=0.0):
    """Places in the region, a margin of its width away from the limits."""
    low_3, high_3 = region(config, device=CPU)
    unit_N3 = torch.rand(n, 3, generator=seeded(seed))
    return low_3 + (high_3 - low_3) * (margin + (1 - 2 * margin) * unit_N3)


def match(target_BN1):
    """The score |aᴴ a′|² / N of steering vectors with one of each scene."""

    def score(steering_BNX):
        match_BX = (target_BN1.mH @ steering_BNX).squeeze(1)
        return match_BX.abs().square() / target_BN1.shape[1]

    return score


def correlations(places_BK3, config):
    a_BNK = steering_at(places_BK3, config)
    return (a_BNK.mH @ a_BNK).abs() / config.elements


@pytest.mark.parametrize("size", SIZES)
def test_the_grid_is_fine_enough_and_spans_the_region(size):
    config = SIZES[size]

    places_G3, grid_NG = steered_grid(config, "cpu")

    low_3, high_3 = region(config, device=CPU)
    assert torch.equal(places_G3.amin(0), low_3)
    assert torch.equal(places_G3.amax(0), high_3)
    assert grid_NG.shape == (config.elements, len(places_G3))
    # Half a step in all three turns a vector by some 0.4 rad, rms: its cosine is 0.92.
    anywhere_NX = steering_at(places(config, 300), config)
    nearest_X = ((anywhere_NX.mH @ grid_NG).abs() / config.elements).amax(-1)
    assert nearest_X.min() > 0.85


def test_the_covariance_of_the_label_leads_to_its_sources():
    scenes = drawn(TINY, 300)
    mask_BK = scenes.source_mask_BK

    by_factor_BK3 = music_of_factor(scenes.factor_BNK, mask_BK, TINY)
    label_BNN = scenes.factor_BNK @ scenes.factor_BNK.mH
    by_covariance_BK3 = music_of_covariance(label_BNN, mask_BK, TINY)

    for found_BK3 in (by_factor_BK3, by_covariance_BK3):
        # The last step turns the vector by 1e-3 rad, rms: ε ~ 1e-6 along an axis, some more in the
        # float32 score's flat top, whose curvature is lost at √2⁻²³ = 3e-4 rad of a turn.
        assert position_subspace_error(found_BK3, scenes, TINY).median() < 1e-4
        # 1e-3 rad of a turn are 5 mm of range at 1 m and more behind.
        assert position_error_m(found_BK3, scenes).nanmedian() < 1e-2
    # The two are the same but for the decomposition's rounding and order.
    gap_BK = (by_factor_BK3 - by_covariance_BK3).abs().amax(-1)
    assert (gap_BK[mask_BK] < 2e-2).float().mean() > 0.9


def test_the_refinement_never_lowers_a_score():
    target_BN1 = steering_at(places(TINY, 50).unsqueeze(1), TINY)
    score = match(target_BN1)
    _, grid_NG = steered_grid(TINY, "cpu")

    found_B13 = find_peaks(score, torch.ones(50, 1, dtype=torch.bool), TINY)

    refined_B = score(steering_at(as_positions(found_B13), TINY)).squeeze(-1)
    on_grid_B = score(grid_NG.unsqueeze(0)).amax(-1)
    # Rounding of a range and back, times 36.
    assert (refined_B > on_grid_B - 1e-4).all()
    # A star that halves each round stops short in the valley of angle and range, by 0.06 rad at
    # most (over 400 places ε: median 1e-5, at most 3e-3).
    missed_B = 1 - refined_B / TINY.elements
    assert missed_B.median() < 1e-4
    assert missed_B.max() < 5e-3


def test_peaks_stay_in_the_region_whoever_calls_from_outside():
    low_3, high_3 = region(TINY, device=CPU)
    outside_B3 = places(TINY, 50)
    outside_B3[:, 0] = high_3[0] + 0.1
    outside_B3[25:, 2] = high_3[2] * 1.2
    score = match(steering_at(outside_B3.unsqueeze(1), TINY))

    found_BK3 = find_peaks(score, torch.ones(50, 2, dtype=torch.bool), TINY)

    at_BK3 = as_positions(found_BK3)
    # A reciprocal and back in float32.
    assert (at_BK3 >= low_3 - 1e-6).all()
    assert (at_BK3 <= high_3 + 1e-6).all()
    assert (at_BK3[:, 0, 0] == high_3[0]).float().mean() > 0.9


@pytest.mark.parametrize("count", [2, 3])
def test_further_peaks_on_the_grid_do_not_correlate_with_those_before(count, monkeypatch):
    scenes = drawn(TINY, 60)
    score = match(scenes.steering_BNK[..., :1])
    mask_BK = torch.ones(60, count, dtype=torch.bool)

    monkeypatch.setattr(peaks, "_ROUNDS", 0)
    on_grid_BK3 = as_positions(find_peaks(score, mask_BK, TINY))

    correlation_BKK = correlations(on_grid_BK3, TINY)
    # Rounding of a range and back.
    assert correlation_BKK.triu(1).max() < EXCLUSION + 1e-4
    first_B, second_B = score(steering_at(on_grid_BK3, TINY)).T[:2]
    assert (first_B >= second_B).all()


def test_the_weaker_of_two_sources_is_found_beside_the_shoulders_of_the_stronger():
    at_BK3 = places(TINY, 400).view(200, 2, 3)
    apart_B = correlations(at_BK3, TINY)[:, 0, 1] < 0.2
    a_BNK = steering_at(at_BK3[apart_B], TINY)

    def score(steering_BNX):
        return ((a_BNK.mH @ steering_BNX).abs().square() * torch.tensor([[1.0], [0.5]])).sum(1)

    found_BK3 = find_peaks(score, torch.ones(len(a_BNK), 2, dtype=torch.bool), TINY)

    # Lobes overlap by up to 0.2² · 2 of the weaker's power: its peak is shifted, not lost.
    true_BK = (a_BNK.conj() * steering_at(as_positions(found_BK3), TINY)).sum(
        1
    ).abs() / TINY.elements
    assert len(a_BNK) > 100
    assert (true_BK[:, 0] > 0.98).float().mean() > 0.98
    assert (true_BK[:, 1] > 0.9).float().mean() > 0.95


def test_the_axes_turn_the_steering_vector_alike_and_independently():
    at_BK3 = places(TINY, 40, margin=0.1).view(20, 2, 3)

    axes_BK33 = peaks._even_axes(at_BK3, TINY)

    h = 1e-4
    at_BK3, axes_BK33 = at_BK3.double(), axes_BK33.double()
    a_BNK = steering_at(at_BK3, TINY)
    turns = []
    for axis_BK3 in axes_BK33.unbind(-2):
        ahead, behind = (steering_at(at_BK3 + sign * h * axis_BK3, TINY) for sign in (1, -1))
        turn_BNK = (ahead - behind) / (2 * h)
        along_BK = (a_BNK.conj() * turn_BNK).sum(1) / TINY.elements
        turns.append(turn_BNK - a_BNK * along_BK.unsqueeze(1))
    D_BKN3 = torch.stack(turns, -1).transpose(1, 2)
    gram_BK33 = (D_BKN3.mH @ D_BKN3).real / TINY.elements
    # The load of 1e-6 against curvature's part of the metric, here above 1e-3 of the angles', and
    # float32's 6e-8 times the metric's condition 1e3.
    expected = torch.eye(3).double().expand_as(gram_BK33)
    torch.testing.assert_close(gram_BK33, expected, rtol=0, atol=5e-3)


def test_a_constant_score_has_peaks_too():
    found_BK3 = find_peaks(
        lambda steering_BNX: torch.zeros(2, steering_BNX.shape[-1]),
        torch.tensor([[True, True], [True, False]]),
        replace(TINY, max_sources=2),
    )

    assert found_BK3.isfinite().all(-1).tolist() == [[True, True], [True, False]]
