"""The likelihood against torch's own distribution and the Fisher information; its climb.

Shapes: B scenes, L codes, M antennas, T snapshots a code, K sources, P = 4K + 1 parameters (places
source by source, log powers, log noise).
"""

from dataclasses import replace
from math import log, pi

import pytest
import torch
from torch.distributions import MultivariateNormal

from models.ris.estimators import likelihood
from models.ris.estimators.fit import Fit
from models.ris.estimators.likelihood import Likelihood, refined_positions
from models.ris.estimators.peaks import region
from models.ris.estimators.pseudospectra import music_per_code
from models.ris.scene.geometry import as_positions
from models.ris.scene.scenes import (
    SIZES,
    Installation,
    element_positions,
    scaled_sample_covariance,
    steering,
)
from models.ris.truth.fisher import stochastic_information
from tests.support.drawn_scenes import drawn, seeded

UNIT, TINY = SIZES["unit"], SIZES["tiny"]
CASES = [(1, True), (3, False)]  # snapshots, whether the wall is shared


def in_double(scenes):
    """The scenes in complex128, the samples computed anew."""
    wall = scenes.installation
    snapshots_BLMT = scenes.snapshots_BLMT.to(torch.complex128)
    return replace(
        scenes,
        installation=Installation(
            wall.channel_BMN.to(torch.complex128), wall.codes_BLN.to(torch.complex128)
        ),
        snapshots_BLMT=snapshots_BLMT,
        sample_BLMM=scaled_sample_covariance(snapshots_BLMT),
    )


def unit_B(scenes):
    """A sample covariance's trace, averaged over codes: the sample's unit in the label's."""
    snapshots_BLMT = scenes.snapshots_BLMT.to(torch.complex128)
    return snapshots_BLMT.abs().square().sum((-2, -1)).mean(-1) / snapshots_BLMT.shape[-1]


def at_truth(scenes, config):
    """The true parameters, in the units of the sample."""
    mask_BK = scenes.source_mask_BK
    middle_3 = torch.stack(region(config, device=mask_BK.device)).double().mean(0)
    places_BK3 = as_positions(scenes.positions_BK3.double()).where(mask_BK[..., None], middle_3)
    power_BK = scenes.powers_BK.double().where(mask_BK, 1.0)
    factor_BNK = scenes.factor_BNK.to(torch.complex128)
    heard_BLMK = scenes.installation.sensing_BLMN.to(torch.complex128) @ factor_BNK.unsqueeze(1)
    gain_B = heard_BLMK.abs().square().sum((-2, -1)).mean(-1) / config.antennas
    noise_B = gain_B * 10 ** (-scenes.snr_db_B.double() / 10)
    return Fit(
        places_BK3=places_BK3,
        log_power_BK=(power_BK / unit_B(scenes)[:, None]).log(),
        log_noise_B=(noise_B / unit_B(scenes)).log(),
        mask_BK=mask_BK,
        misfit_B=torch.full_like(noise_B, torch.inf),
    )


def shaken(fit, seed):
    """Other parameters, near enough to stay in the region where those were drawn in its middle."""
    at_BP = fit.parameters_BP
    shift_BP = 0.1 * torch.randn(at_BP.shape, dtype=torch.float64, generator=seeded(seed))
    return fit.with_parameters(at_BP + shift_BP)


def negative_log_likelihood(parameters_BP, scenes, config):
    """−log p of the snapshots in the sample's units, by torch.distributions in real coordinates."""
    mask_BK = scenes.source_mask_BK
    b, k = mask_BK.shape
    places_BK3 = parameters_BP[:, : 3 * k].reshape(b, k, 3)
    power_BK = parameters_BP[:, 3 * k : 4 * k].exp() * mask_BK
    elements_N3 = element_positions(config).double()
    a_BNK = steering(as_positions(places_BK3), elements_N3, wavelength_m=config.wavelength_m)
    heard_BLMK = scenes.installation.sensing_BLMN @ a_BNK.unsqueeze(1)
    R_BLMM = (heard_BLMK * power_BK[:, None, None]) @ heard_BLMK.mH
    noise_BLM = parameters_BP[:, -1].exp()[:, None, None].expand(R_BLMM.shape[:-1])
    R_BLMM = R_BLMM + torch.diag_embed(noise_BLM)
    top = torch.cat((R_BLMM.real, -R_BLMM.imag), -1)
    covariance = torch.cat((top, torch.cat((R_BLMM.imag, R_BLMM.real), -1)), -2) / 2
    y_BLMT = scenes.snapshots_BLMT / unit_B(scenes).sqrt()[:, None, None, None]
    y_TBLX = torch.cat((y_BLMT.real, y_BLMT.imag), 2).movedim(-1, 0)
    normal = MultivariateNormal(torch.zeros(2 * config.antennas).double(), covariance)
    return -normal.log_prob(y_TBLX).sum((0, -1))


@pytest.mark.parametrize(("snapshots", "is_shared"), CASES)
def test_the_misfit_is_the_negative_log_likelihood_and_the_slope_its_gradient(snapshots, is_shared):
    config = replace(UNIT, snapshots=snapshots, max_sources=3)
    scenes = in_double(drawn(config, 6, is_shared=is_shared))
    constant = config.codes * snapshots * config.antennas * log(pi)
    assert len(set(scenes.source_mask_BK.sum(-1).tolist())) > 1

    for seed in range(3):
        fit = shaken(at_truth(scenes, config), seed)
        measured, slope_BP, _ = Likelihood(scenes, config)._measured(fit)

        at_BP = fit.parameters_BP.requires_grad_()
        expected_B = negative_log_likelihood(at_BP, scenes, config)
        (gradient_BP,) = torch.autograd.grad(expected_B.sum(), at_BP)
        # Float64; at 20 dB a covariance has a condition of some 1e3, a fit that is off a misfit of
        # some 1e4.
        torch.testing.assert_close(measured.misfit_B + constant, expected_B, rtol=1e-10, atol=1e-8)
        torch.testing.assert_close(slope_BP, gradient_BP, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize(("snapshots", "is_shared"), CASES)
def test_the_information_is_fishers_in_other_parameters(snapshots, is_shared):
    config = replace(UNIT, snapshots=snapshots, max_sources=3)
    scenes = in_double(drawn(config, 6, is_shared=is_shared))
    fit = at_truth(scenes, config)

    _, _, found_BPP = Likelihood(scenes, config)._measured(fit)

    # ∂r/∂(1/r) = −r²; ∂p/∂log p = p, whatever the unit.
    J_BYY = stochastic_information(scenes, config)
    scale_BK3 = torch.ones_like(fit.places_BK3)
    scale_BK3[..., 2] = -1 / fit.places_BK3[..., 2].square()
    noise_B1 = (fit.log_noise_B.exp() * unit_B(scenes)).unsqueeze(-1)
    scale_BY = torch.cat((scale_BK3.flatten(1), scenes.powers_BK.double(), noise_B1), -1)
    expected_BPP = scale_BY[:, :, None] * J_BYY * scale_BY[:, None]
    # To a unit diagonal, entries may cancel: float32 codes (6e-8) on both sides, inverses of
    # condition 1e3 in float64.
    size_BP = expected_BPP.diagonal(dim1=-2, dim2=-1).sqrt() + (scale_BY == 0)
    size_BP = torch.where(size_BP > 0, size_BP, 1.0)
    error_BPP = (found_BPP - expected_BPP) / (size_BP[:, :, None] * size_BP[:, None])
    assert error_BPP.abs().max() < 1e-6
    absent_BK = ~scenes.source_mask_BK
    absent_BP = torch.cat(
        (absent_BK.repeat_interleave(3, 1), absent_BK, absent_BK[:, :1] & False), 1
    )
    assert absent_BP.any()
    assert (found_BPP.diagonal(dim1=-2, dim2=-1)[absent_BP] == 0).all()


@pytest.mark.parametrize("is_shared", [True, False])
def test_no_round_raises_the_misfit_or_leaves_the_region(is_shared):
    scenes = drawn(UNIT, 40, is_shared=is_shared)
    low_3, high_3 = (corner.double() for corner in region(UNIT, device=torch.device("cpu")))
    model = Likelihood(scenes, UNIT)
    # Anywhere, corners among it: most starts are far from any peak.
    unit_BK3 = torch.rand(40, 2, 3, dtype=torch.float64, generator=seeded(5))
    unit_BK3 = (1.5 * unit_BK3 - 0.25).clamp(0, 1)
    start_BK3 = as_positions(low_3 + (high_3 - low_3) * unit_BK3)
    start = model.start(
        start_BK3.where(scenes.source_mask_BK[..., None], torch.nan), scenes.source_mask_BK
    )

    misfits, places = [], []
    for rounds in range(13):
        fit = model.climb(start, rounds=rounds)
        misfits.append(fit.misfit_B)
        places.append(fit.places_BK3)

    assert (torch.stack(misfits).diff(dim=0) <= 0).all()
    assert (misfits[-1] < misfits[0] - 1).double().mean() > 0.5
    found = torch.stack(places)
    assert ((found >= low_3) & (found <= high_3)).all()


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_climb_ends_where_the_slope_is_zero_or_a_limit_holds(is_shared):
    scenes = drawn(TINY, 60, is_shared=is_shared, snr_db=20.0)
    model = Likelihood(scenes, TINY)

    fit = model.climb(at_truth(scenes, TINY), rounds=30)

    _, slope_BP, information_BPP = model._measured(fit)
    low_P, high_P = model._limits(2)
    at_BP = fit.parameters_BP
    is_held_BP = torch.where(slope_BP > 0, at_BP <= low_P, at_BP >= high_P)
    size_BP = information_BPP.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).sqrt()
    # Slope over its own standard deviation: so many deviations of a step are left. Scoring
    # converges linearly, slowly where a source is all but explained by another: a few stop short.
    left_B = (slope_BP / size_BP).where(~is_held_BP, 0).abs().amax(-1)
    assert left_B.median() < 1e-5
    assert (left_B < 1e-2).double().mean() > 0.95
    assert is_held_BP.any()


def test_a_source_at_a_limit_does_not_stop_the_others_parameters():
    # Behind the region, so that its range ends at the limit, where angles have their own peak.
    near = replace(TINY, max_sources=1, range_min_m=0.45, range_max_m=0.5)
    scenes = drawn(near, 40, snr_db=20.0)
    beyond = replace(near, range_min_m=0.55, range_max_m=1.8)
    model = Likelihood(scenes, beyond)

    fit = model.climb(model.start(scenes.positions_BK3, scenes.source_mask_BK))

    longer = model.climb(fit, rounds=100)
    at_limit_B = fit.places_BK3[:, 0, 2] == region(beyond, device=torch.device("cpu"))[1][2]
    assert at_limit_B.double().mean() > 0.9
    # In nats, δ²/2 of a tenth of a deviation. Clamped after a step as if range could move, half the
    # scenes stopped 0.3 nats short of it, the worst 3.5.
    gap_B = fit.misfit_B - longer.misfit_B
    assert gap_B.max() < 0.005


def test_what_stands_in_the_place_of_an_absent_source_does_not_count():
    scenes = drawn(UNIT, 20)
    absent_BK = ~scenes.source_mask_BK
    model = Likelihood(scenes, UNIT)
    start = model.start(scenes.positions_BK3, scenes.source_mask_BK)
    other = replace(
        start,
        places_BK3=start.places_BK3.where(~absent_BK[..., None], 0.3),
        log_power_BK=start.log_power_BK.where(~absent_BK, 5.0),
    )

    fit, same = model.climb(start), model.climb(other)

    assert absent_BK.any()
    assert torch.equal(fit.misfit_B, same.misfit_B)
    assert torch.equal(fit.positions_BK3.nan_to_num(9), same.positions_BK3.nan_to_num(9))
    assert torch.equal(fit.positions_BK3.isnan().all(-1), absent_BK)
    # Nor does a place for it in the tensors at all.
    alone = scenes.select(absent_BK[:, 1])
    alone = replace(alone, source_mask_BK=alone.source_mask_BK[:, :1])
    single = refined_positions(scenes.positions_BK3[absent_BK[:, 1], :1], alone, UNIT)
    torch.testing.assert_close(single, fit.positions_BK3[absent_BK[:, 1], :1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("snapshots", "is_shared"), CASES)
def test_a_batch_gives_what_single_scenes_give(snapshots, is_shared, monkeypatch):
    config = replace(UNIT, snapshots=snapshots)
    scenes = drawn(config, 12, is_shared=is_shared, snr_db=20.0)
    start_BK3 = music_per_code(scenes, config)

    together_BK3 = refined_positions(start_BK3, scenes, config)
    monkeypatch.setattr(likelihood, "_CHUNK_BYTES", 1)
    alone_BK3 = refined_positions(start_BK3, scenes, config)

    # Float64 sums in another order, over 12 rounds of steps that a tie may decide; what is left is
    # float32's rounding of the result.
    torch.testing.assert_close(together_BK3, alone_BK3, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_the_start_explains_the_scale_of_the_samples():
    scenes = drawn(TINY, 40)
    model = Likelihood(scenes, TINY)

    fit = model.start(scenes.positions_BK3, scenes.source_mask_BK)

    # At a peak in log powers and noise together Σ_l tr(R_l⁻¹ S_l) = L M: none of their sum's slope.
    total_B = model.climb(fit, rounds=40, moves=False)
    _, slope_BP, _ = model._measured(total_B)
    assert (slope_BP[:, 6:].sum(-1).abs() < 1e-3).double().mean() > 0.9
    assert torch.equal(total_B.places_BK3, fit.places_BK3)
    # Four rounds from a guess: within one nat, the change by a deviation or so of one parameter.
    assert (fit.misfit_B - total_B.misfit_B).quantile(0.9) < 1
