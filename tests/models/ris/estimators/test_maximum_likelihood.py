"""Greedy maximum likelihood against the Cramér-Rao bound; sweeps, masks, and the number of sources.

Shapes: B scenes, K sources, X = 3 coordinates of a single source.
"""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2

from models.ris.estimators import maximum_likelihood
from models.ris.estimators.likelihood import Likelihood
from models.ris.estimators.peaks import steering_at
from models.ris.estimators.ridge import (
    greedy_maximum_likelihood,
    mdl_count,
    music_per_code,
    refined_positions,
)
from models.ris.scene.geometry import as_positions
from models.ris.scene.scenes import SIZES
from models.ris.truth.bounds import stochastic_bound
from models.ris.truth.metric import match_positions
from tests.support.drawn_scenes import blinded, drawn

UNIT, TINY = SIZES["unit"], SIZES["tiny"]


def positions(fits, k):
    return fits[k - 1].positions_BK3


def correlation_BK(positions_BK3, scenes, config):
    """|aᴴ a′|/N of each true source with the estimate matched to it; 0 for absent ones."""
    matched_BK3, _ = match_positions(positions_BK3, scenes)
    a_BNK = steering_at(as_positions(matched_BK3), config)
    return (scenes.steering_BNK.conj() * a_BNK).sum(1).abs().nan_to_num() / config.elements


def test_one_source_at_20_db_is_found_to_the_bound():
    runs = 150
    # Within the region of the estimator by more than ten deviations, which limits would cut off.
    middle = replace(
        TINY,
        max_sources=1,
        range_min_m=0.5,
        range_max_m=0.8,
        azimuth_max_rad=0.8,
        elevation_max_rad=0.4,
    )
    config = replace(TINY, max_sources=1)
    scenes = drawn(middle, runs, snr_db=20.0)

    found_BK3 = positions(greedy_maximum_likelihood(blinded(scenes), config), 1)

    bound_BXX = stochastic_bound(scenes, config)
    error_BX = (found_BK3 - scenes.positions_BK3)[:, 0].double()
    ratio = (
        error_BX.unsqueeze(1) @ torch.linalg.inv(bound_BXX) @ error_BX.unsqueeze(-1)
    ).mean() / 3
    # Whitened errors: chi-square of 3·R degrees, 1e-4 on each side. The bound is reached from above
    # as codes are added: with 16 the mean square exceeds it by 15 %, as in `test_bounds`.
    low, high = (chi2.ppf(p, 3 * runs) / (3 * runs) for p in (1e-4, 1 - 1e-4))
    assert low < ratio < 1.15 * high


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_sweep_never_raises_the_misfit(is_shared):
    scenes = drawn(UNIT, 20, is_shared=is_shared)

    none, one, two = (greedy_maximum_likelihood(scenes, UNIT, sweeps=n) for n in (0, 1, 2))

    assert torch.equal(none[0].misfit_B, two[0].misfit_B)  # one source has nothing to sweep
    assert (one[1].misfit_B <= none[1].misfit_B).all()
    assert (two[1].misfit_B <= one[1].misfit_B).all()
    assert (one[1].misfit_B < none[1].misfit_B - 0.1).any()


def test_the_misfit_told_is_that_of_the_parameters_told():
    scenes = drawn(UNIT, 20)

    for fit in greedy_maximum_likelihood(scenes, UNIT):
        again = Likelihood(scenes, UNIT).climb(fit, rounds=0)
        # Float64 sums in another order.
        torch.testing.assert_close(again.misfit_B, fit.misfit_B, rtol=1e-10, atol=1e-9)


def test_a_mask_limits_the_sources_of_a_scene():
    scenes = drawn(UNIT, 30)
    mask_BK = scenes.source_mask_BK
    single_B = ~mask_BK[:, 1]

    fits = greedy_maximum_likelihood(scenes, UNIT, mask_BK=mask_BK)

    assert torch.equal(positions(fits, 1).isnan().any(-1), torch.tensor([[False, True]] * 30))
    assert torch.equal(positions(fits, 2).isnan().any(-1), ~mask_BK)
    # Of one source, further rounds are further climbs.
    assert (fits[1].misfit_B[single_B] <= fits[0].misfit_B[single_B]).all()
    # A narrower mask needs no config of its own.
    alone = greedy_maximum_likelihood(scenes, UNIT, mask_BK=mask_BK[:, :1])
    assert len(alone) == 1
    # Float64 sums in another order, between which few rounds of steps had to choose.
    gap_B = (alone[0].misfit_B - fits[0].misfit_B).abs()
    assert (gap_B < 1e-6).double().mean() > 0.9


@pytest.mark.parametrize("is_shared", [True, False])
def test_fits_do_not_depend_on_chunks(is_shared, monkeypatch):
    scenes = drawn(UNIT, 8, is_shared=is_shared, snr_db=20.0)

    together = greedy_maximum_likelihood(scenes, UNIT)
    monkeypatch.setattr(maximum_likelihood, "_CHUNK_BYTES", 1)
    alone = greedy_maximum_likelihood(scenes, UNIT)

    for whole, part in zip(together, alone, strict=True):
        # Float32 gains choose between grid points, of which two about as good lead to one peak; all
        # but a tie agree to the climb's last step.
        gap_B = (whole.misfit_B - part.misfit_B).abs()
        assert (gap_B < 1e-2).double().mean() > 0.8


def test_description_length_finds_the_number_of_sources():
    scenes = drawn(TINY, 100, snr_db=20.0)

    count_B = mdl_count(greedy_maximum_likelihood(blinded(scenes), TINY), TINY.codes)

    hits_B = count_B == scenes.source_mask_BK.sum(-1)
    assert hits_B.double().mean() > 0.9


def test_description_length_weighs_misfit_against_parameters():
    fits = greedy_maximum_likelihood(drawn(UNIT, 2), UNIT)
    # ½ · 4 log 8 = 4.16 nats is what another source must gain.
    told = [
        replace(fit, misfit_B=torch.tensor(misfit).double())
        for fit, misfit in zip(fits, ([0.0, 0.0], [-4.1, -4.2]), strict=True)
    ]

    assert mdl_count(told, 8).tolist() == [1, 2]


def test_whoever_finds_the_main_lobe_ends_at_the_likelihoods_peak():
    scenes = drawn(TINY, 100, snr_db=20.0)
    mask_BK = scenes.source_mask_BK

    music_BK3 = music_per_code(blinded(scenes), TINY)
    refined_BK3 = refined_positions(music_BK3, blinded(scenes), TINY)
    likeliest_BK3 = positions(greedy_maximum_likelihood(blinded(scenes), TINY, mask_BK=mask_BK), 2)

    # 0.8: within the lobe's half power, where scoring's steps lead upward.
    is_near_B = (correlation_BK(music_BK3, scenes, TINY) > 0.8).logical_or(~mask_BK).all(-1)
    one, other = (match_positions(p, scenes)[0] for p in (refined_BK3, likeliest_BK3))
    gap_B = (one - other).abs().nan_to_num().amax((-2, -1))[is_near_B]
    assert is_near_B.double().mean() > 0.6
    # In rad and m; deviations are above 1e-3 rad and 5e-3 m. The rest has a lobe of two peaks.
    assert gap_B.median() < 1e-3
    assert (gap_B < 1e-2).double().mean() > 0.9
