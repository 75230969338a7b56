"""The hybrid network: what it promises about inputs, precision, gradients and physics."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from models.ris.network.covariance_net import RisCovarianceNet, factor_from
from models.ris.network.hybrid import HybridNet
from models.ris.network.hypotheses import lattice
from models.ris.scene.scenes import NOISE_FLOOR, SIZES, Scenes
from models.ris.truth.metric import factor_subspace_error, position_subspace_error
from tests.models.ris.network.test_covariance_net import loss_of, outputs_of, scenes_of
from tests.support.toys import Operators

UNIT, TINY = SIZES["unit"], SIZES["tiny"]


def net_of(config, *, seed: int = 0, **sizes) -> HybridNet:
    torch.manual_seed(seed)
    return HybridNet(config, **{"width": 32, "hypotheses": 32, **sizes})


def missed(net, scenes: Scenes) -> float:
    with torch.no_grad():
        factor_BNR, _ = factor_from(outputs_of(net, scenes))
    return float(factor_subspace_error(factor_BNR, scenes).mean())


@pytest.mark.parametrize("size", ["unit", "tiny", "base", "full"])
@pytest.mark.parametrize("own_walls", [False, True])
def test_a_factor_of_trace_n_comes_out_at_every_size(size, own_walls):
    config = SIZES[size]
    scenes = scenes_of(config, 2, own_walls=own_walls)

    factor_BNR, noise_B = factor_from(outputs_of(net_of(config, rank=7), scenes))

    assert factor_BNR.shape == (2, config.elements, 7)
    assert (noise_B >= NOISE_FLOOR).all()
    trace_B = factor_BNR.abs().square().sum((-2, -1))
    # All of R's trace N but what a broad posterior holds outside of 7 directions.
    assert ((trace_B > 0.2 * config.elements) & (trace_B < 1.01 * config.elements)).all()


def test_untrained_it_is_better_than_mean_field():
    scenes = scenes_of(TINY, 1000, seed=2)
    torch.manual_seed(0)
    mean_field = RisCovarianceNet(TINY, layers=2, oversampling=1.2).eval()

    joint = missed(net_of(TINY, hypotheses=64).eval(), scenes)

    # A tenth over 2,000 scenes of each of four walls, with a standard error of .02 for 1,000.
    assert joint < 0.96 * missed(mean_field, scenes)


def test_more_hypotheses_come_closer_to_the_posterior():
    scenes = scenes_of(TINY, 400, seed=2)

    few, many = (missed(net_of(TINY, hypotheses=n).eval(), scenes) for n in (4, 128))

    assert many < few


@pytest.mark.parametrize("rank", [1, 3])
def test_every_parameter_receives_gradient_at_the_first_step(rank):
    scenes, net = scenes_of(UNIT), net_of(UNIT, rank=rank, dropout=0.1)

    loss_of(outputs_of(net, scenes), scenes, UNIT).backward()

    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_learned_part_runs_in_half_precision_and_no_linear_algebra_does(dtype):
    scenes, net = scenes_of(UNIT), net_of(UNIT)

    with Operators() as ops:
        with torch.autocast("cpu", dtype=dtype):
            outputs = outputs_of(net, scenes)
        loss_of(outputs, scenes, UNIT).backward()

    narrow = {torch.float16, torch.bfloat16, torch.complex32}
    algebra = [o for o in ops.seen if any(w in o[0] for w in ("linalg", "chol", "triangular"))]
    assert algebra
    assert all(not dtypes & narrow for _, dtypes in algebra)
    assert any("addmm" in name and dtype in dtypes for name, dtypes in ops.seen)
    assert all(value.dtype == torch.float32 for value in outputs.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_half_precision_moves_weights_by_its_rounding_only():
    scenes, net = scenes_of(UNIT, 64), net_of(UNIT)

    exact = missed(net, scenes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = missed(net, scenes)

    # Corrections of up to .1 nats are rounded by bfloat16's 4e-3; the posterior itself is not.
    assert abs(half - exact) < 5e-3


def test_one_wall_for_all_gives_what_the_same_wall_for_each_gives():
    scenes, net = scenes_of(UNIT), net_of(UNIT)
    wall = scenes.installation
    codes_BLN, channel_BMN = (x.expand(16, -1, -1) for x in (wall.codes_BLN, wall.channel_BMN))

    shared_BNR, shared_noise_B = factor_from(outputs_of(net, scenes))
    own_BNR, own_noise_B = factor_from(net(scenes.sample_BLMM, codes_BLN, channel_BMN))

    # Two orders of summation in fp32; a hypothesis at the edge of a cell may fall to either side.
    close = {"rtol": 0, "atol": 5e-2}
    torch.testing.assert_close(shared_BNR @ shared_BNR.mH, own_BNR @ own_BNR.mH, **close)
    torch.testing.assert_close(shared_noise_B, own_noise_B, **close)


def test_a_wall_never_seen_is_as_good_as_another():
    scenes = scenes_of(TINY, 200, own_walls=True)

    # Ridge matching misses 0.77; a factor 0.25 is 6 dB, which the untrained network has by physics.
    assert missed(net_of(TINY), scenes) < 0.25 * 0.77


def test_more_snapshots_bring_it_closer():
    configs = [replace(TINY, snapshots=count) for count in (1, 4)]

    errors = [missed(net_of(one).eval(), scenes_of(one, 200)) for one in configs]

    # MUSIC per code misses a third with four snapshots of what it misses with one.
    assert errors[1] < 0.6 * errors[0]


def test_the_truth_does_not_reach_the_network():
    scenes, net = scenes_of(UNIT), net_of(UNIT).eval()
    blind = scenes.blinded()

    outputs, unseen = outputs_of(net, scenes), outputs_of(net, blind)

    assert torch.equal(outputs["factor"], unseen["factor"])


def test_random_weights_cost_a_third_of_what_was_found():
    scenes, net = scenes_of(TINY, 300), net_of(TINY).eval()
    changed = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))

    # The likelihoods are not learned, so that random corrections of ±8 nats leave the sharp ones.
    assert missed(changed, scenes) > 1.3 * missed(net, scenes)


def test_a_poisoned_weight_gives_nonfinite_outputs_and_no_exception():
    scenes, net = scenes_of(UNIT), net_of(UNIT)
    with torch.no_grad():
        net.head.control.weight.fill_(torch.nan)

    outputs = outputs_of(net, scenes)

    assert not any(value.isfinite().all() for value in outputs.values())


def test_its_positions_are_of_the_sources_that_are_present():
    scenes, net = scenes_of(TINY, 300), net_of(TINY, hypotheses=64).eval()
    clear = scenes.select(scenes.snr_db_B > 15)
    wall = clear.installation

    found_BK3 = net.positions(
        clear.sample_BLMM, wall.codes_BLN, wall.channel_BMN, clear.source_mask_BK
    )

    assert torch.equal(found_BK3.isnan().any(-1), ~clear.source_mask_BK)
    # The limit above 10 dB is .008; positions of one zoom miss twice that.
    assert position_subspace_error(found_BK3, clear, TINY).mean() < 0.04


def test_a_number_of_sources_that_the_data_rule_out_has_positions_all_the_same():
    # One source explains two at 20 dB so badly that its weight is below any that fp32 can hold.
    clear = replace(TINY, snr_min_db=20.0)
    scenes, net = scenes_of(clear, 100, seed=3), net_of(TINY, hypotheses=64).eval()
    mask_BK, wall = torch.tensor([True, False]).expand(100, -1), scenes.installation

    found_BK3 = net.positions(scenes.sample_BLMM, wall.codes_BLN, wall.channel_BMN, mask_BK)

    assert found_BK3[:, 0].isfinite().all()


def test_the_same_scenes_give_the_same_output():
    scenes, net = scenes_of(UNIT), net_of(UNIT).eval()

    first, second = (outputs_of(net, scenes)["factor"] for _ in range(2))

    assert torch.equal(first, second)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_the_lattice_fills_the_cube_evenly(dimensions):
    points_DS = lattice(256, dimensions)

    assert ((points_DS >= 0) & (points_DS < 1)).all()
    # Means of 256 independent points would deviate by .018; a lattice by about a tenth of that.
    assert (points_DS.mean(-1) - 0.5).abs().max() < 0.01
    quarters = (points_DS[0] * 4).long().bincount(minlength=4)
    assert (quarters - 64).abs().max() <= 2


@pytest.mark.parametrize("wrong", [{"width": 0}, {"layers": 0}, {"hypotheses": 0}])
def test_sizes_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="write 1 or more"):
        net_of(UNIT, **wrong)
