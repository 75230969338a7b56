"""The sampler against importance sampling and against itself; the limit against estimators.

Shapes: B scenes, J hypotheses of a bank, N elements, K sources.
"""

from dataclasses import replace
from math import sqrt

import pytest
import torch

from models.linalg.dominant import dominant_of_covariance
from models.ris.estimators.ridge import greedy_maximum_likelihood
from models.ris.limit.bank import Bank
from models.ris.limit.hypotheses import Measured
from models.ris.limit.posterior import Posteriors
from models.ris.limit.tempering import Effort
from models.ris.network.covariance_net import RisCovarianceNet, factor_from
from models.ris.problem import wall
from models.ris.scene.scenes import SIZES, draw_scenes
from models.ris.truth.bounds import stochastic_bound, subspace_floor
from models.ris.truth.metric import factor_subspace_error, position_subspace_error, subspace_error

UNIT = SIZES["unit"]
COUNT, DRAWS = 40, 8192
EFFORT = Effort(hypotheses=256, rounds=1, settling=1, counted=4)


def scenes_at(snr_db, count, seed):
    config = replace(UNIT, snr_min_db=snr_db[0], snr_max_db=snr_db[1])
    shared = wall("unit", UNIT.problem_seed, "fixed", "cpu")
    return draw_scenes(config, count, torch.Generator().manual_seed(seed), installation=shared)


@pytest.fixture(scope="module")
def scenes():
    return scenes_at((-5.0, 20.0), COUNT, seed=0)


@pytest.fixture(scope="module")
def runs(scenes):
    """Two independent runs over the same scenes, which do not see the truth."""
    blind = scenes.blinded()
    return [Posteriors(UNIT, EFFORT, draws=DRAWS, seed=seed).of(blind) for seed in (0, 1)]


def test_at_low_snr_the_sampler_agrees_with_importance_sampling():
    scenes = scenes_at((-5.0, 0.0), 12, seed=1)
    found = Posteriors(UNIT, EFFORT, draws=DRAWS, seed=0).of(scenes.blinded())
    ratios = []

    for count in (1, 2):
        index_B = (scenes.source_mask_BK.sum(-1) == count).nonzero().squeeze(-1)
        some = scenes.select(index_B)
        bank = Bank(some, UNIT, draws=40_000, generator=torch.Generator().manual_seed(9))
        weight_BJ = bank.log_likelihood(some).softmax(-1)
        sights = Measured(some, UNIT).hypotheses(bank.unit_XJ).sights_K
        columns_JNK = torch.stack([sight.steering_NP.mT for sight in sights], -1)
        basis_JNK = torch.linalg.qr(columns_JNK).Q
        for row, b in enumerate(index_B.tolist()):
            weighted_JNK = basis_JNK * weight_BJ[row][:, None, None]
            mean_NN = torch.einsum("jnk,jmk->nm", weighted_JNK, basis_JNK.conj())
            distance = float((mean_NN - found.span_BNN[b]).abs().square().sum())
            # A mean of S projectors of rank K errs by (K − ‖mean‖²)/S in square norm. The moves'
            # hypotheses are taken as P effective ones, the bank's as 1/Σ w².
            spread = count - float(mean_NN.abs().square().sum())
            size = 1 / (1 / EFFORT.hypotheses + float(weight_BJ[row].square().sum()))
            ratios.append(distance * size / spread)

    # The mean of twelve: 1 if all is as assumed, less as rounds of moves add to the sample.
    assert 0.05 < sum(ratios) / len(ratios) < 1.5
    assert max(ratios) < 6


def test_the_posterior_expects_the_error_that_the_truth_shows(scenes, runs):
    one, other = runs
    mask_BK = scenes.source_mask_BK
    columns_BNK = dominant_of_covariance(one.span_BNN, 2) * mask_BK.unsqueeze(-2)
    held_B = (columns_BNK.conj() * (other.span_BNN @ columns_BNK)).sum((-2, -1)).real
    expected_B = 1 - held_B / mask_BK.sum(-1)

    surprise_B = subspace_error(one.span_BNN, scenes) - expected_B

    # Truth and hypotheses have one law given the snapshots, so the mean is 0 but for a few scenes.
    assert abs(float(surprise_B.mean())) < 4 * float(surprise_B.std()) / sqrt(len(scenes))
    # A posterior that is too narrow, or a likelihood that is wrong, is surprised by far more.
    assert float(surprise_B.std()) < 0.3


def test_no_estimator_gets_below_the_limit(scenes, runs):
    limit_B = subspace_error((runs[0].span_BNN + runs[1].span_BNN) / 2, scenes)
    blind = scenes.blinded()
    fits = greedy_maximum_likelihood(blind, UNIT, mask_BK=scenes.source_mask_BK)
    torch.manual_seed(0)
    net = RisCovarianceNet(UNIT, width=32, layers=3, rank=3).eval()
    with torch.no_grad():
        factor_BNR, _ = factor_from(
            net(blind.sample_BLMM, blind.installation.codes_BLN, blind.installation.channel_BMN)
        )

    others = {
        "maximum likelihood": position_subspace_error(fits[-1].positions_BK3, scenes, UNIT),
        "untrained network": factor_subspace_error(factor_BNR, scenes),
        "mean covariance": subspace_error(runs[0].covariance_BNN, scenes) + 1e-3,
    }

    for name, error_B in others.items():
        excess_B = (error_B - limit_B).double()
        standard = float(excess_B.std()) / sqrt(len(scenes))
        assert float(excess_B.mean()) > -2 * standard, name


def test_two_runs_differ_by_no_more_than_their_samples_allow(runs):
    one, other = runs
    squared_B = (one.span_BNN - other.span_BNN).abs().square().sum((-2, -1))
    spread_B = one.span_BNN.diagonal(dim1=-2, dim2=-1).sum(-1).real
    spread_B = spread_B - one.span_BNN.abs().square().sum((-2, -1))

    # Two means of P independent projectors: 2 (K − ‖mean‖²)/P. Each of about five resamplings at
    # half of the sample effective adds at most as much again.
    allowed = 2 * float(spread_B.mean()) / EFFORT.hypotheses
    assert float(squared_B.mean()) < (1 + 5) * allowed


def test_means_are_of_projectors_and_of_covariances_of_the_labels_trace(scenes, runs):
    found, count_B = runs[0], scenes.source_mask_BK.sum(-1)

    for mean_BNN, trace_B in ((found.span_BNN, count_B), (found.covariance_BNN, UNIT.elements)):
        torch.testing.assert_close(mean_BNN, mean_BNN.mH, rtol=1e-4, atol=1e-5)
        traces_B = mean_BNN.diagonal(dim1=-2, dim2=-1).sum(-1).real
        torch.testing.assert_close(
            traces_B, torch.as_tensor(trace_B).expand(COUNT).float(), rtol=1e-3, atol=0
        )
    values_BN = torch.linalg.eigvalsh(found.span_BNN)
    assert values_BN.min() > -1e-5
    assert values_BN.max() < 1 + 1e-3


def test_a_scenes_means_do_not_depend_on_the_other_scenes(scenes, runs):
    again = Posteriors(UNIT, EFFORT, draws=DRAWS, seed=0).of(
        scenes.select(slice(30, 33)).blinded(), first=30
    )

    # The bank's products are added in another order.
    torch.testing.assert_close(again.span_BNN, runs[0].span_BNN[30:33], rtol=0.05, atol=0.05)


def test_at_high_snr_the_limit_is_the_bound_of_one_source():
    scenes = scenes_at((19.9, 20.0), 60, seed=2)
    scenes = scenes.select(scenes.source_mask_BK.sum(-1) == 1)
    found = Posteriors(UNIT, EFFORT, draws=DRAWS, seed=0).of(scenes.blinded())

    ratio_B = subspace_error(found.span_BNN, scenes) / subspace_floor(
        stochastic_bound(scenes, UNIT), scenes, UNIT
    )

    # ε is a square form of three coordinates' errors: over about 30 scenes its mean has a standard
    # deviation of √(2/3/30) = 0.15. The prior of ranges and of the SNR lets it be below 1.
    assert len(ratio_B) > 20
    assert 0.55 < float(ratio_B.mean()) < 1.45
