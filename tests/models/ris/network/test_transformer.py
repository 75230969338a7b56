"""The all-learned network: its size, its precision, its inputs, and what it is blind to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from products import HALF, Products

from models.ris.network.attention import POOLINGS
from models.ris.network.covariance_net import factor_from
from models.ris.network.transformer import CovarianceTransformer, base_width
from models.ris.scene.scenes import NOISE_FLOOR, SIZES
from models.ris.truth.metric import factor_subspace_error
from tests.models.ris.network.test_covariance_net import loss_of, outputs_of, scenes_of
from tests.support.toys import Operators

UNIT, TINY = SIZES["unit"], SIZES["tiny"]


def net_of(config, *, seed: int = 0, **settings) -> CovarianceTransformer:
    torch.manual_seed(seed)
    return CovarianceTransformer(config, **settings)


@pytest.mark.parametrize("size", ["unit", "tiny", "base", "full"])
@pytest.mark.parametrize("own_walls", [False, True])
def test_a_factor_of_the_asked_rank_comes_out_at_every_size(size, own_walls):
    config = SIZES[size]
    scenes = scenes_of(config, 2, own_walls=own_walls)

    outputs = outputs_of(net_of(config, rank=7), scenes)

    factor_BNR, noise_B = factor_from(outputs)
    assert factor_BNR.shape == (2, config.elements, 7)
    assert all(value.dtype == torch.float32 for value in outputs.values())
    assert (noise_B >= NOISE_FLOOR).all()
    assert all(value.isfinite().all() for value in outputs.values())


@pytest.mark.parametrize(("size", "millions"), [("tiny", 0.4), ("base", 1.7), ("full", 18.0)])
def test_the_default_network_has_its_size_in_parameters(size, millions):
    config = SIZES[size]

    net = net_of(config, rank=config.max_sources + 1)

    count = sum(parameter.numel() for parameter in net.parameters())
    assert abs(count / 1e6 / millions - 1) < 0.15


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_95_percent_of_the_multiply_adds_are_in_half_precision(dtype, size):
    config = SIZES[size]
    # The wall is whitened once a forward, whatever the batch: more scenes have a larger share.
    scenes, net = scenes_of(config, 32), net_of(config)

    with Products() as products, torch.autocast("cpu", dtype=dtype), torch.no_grad():
        outputs_of(net, scenes)

    # With 128 scenes 99.2 % at tiny, 98.7 % at base; with a wall a scene, whose whitening is a
    # product a scene, it is 83 % at tiny.
    assert set(products.by_dtype) <= {dtype, torch.float32, torch.complex64}
    assert products.half_share > 0.95


@pytest.mark.parametrize("dtype", HALF)
def test_no_linear_algebra_runs_in_half_precision(dtype):
    scenes, net = scenes_of(UNIT), net_of(UNIT)

    with Operators() as ops:
        with torch.autocast("cpu", dtype=dtype):
            outputs = outputs_of(net, scenes)
        loss_of(outputs, scenes, UNIT).backward()

    narrow = {torch.float16, torch.bfloat16, torch.complex32}
    algebra = [o for o in ops.seen if any(w in o[0] for w in ("linalg", "chol", "triangular"))]
    assert algebra
    assert all(not dtypes & narrow for _, dtypes in algebra)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("own_walls", [False, True])
def test_half_precision_changes_the_outputs_by_its_rounding_only(dtype, own_walls):
    scenes, net = scenes_of(TINY, 64, own_walls=own_walls), net_of(TINY)

    exact = outputs_of(net, scenes)
    with torch.autocast("cpu", dtype=dtype):
        half = outputs_of(net, scenes)

    # About 20 roundings lie between input and output; independent, they add as their root.
    error = (half["factor"] - exact["factor"]).square().mean().sqrt()
    assert error < 20**0.5 * 2 * torch.finfo(dtype).eps * exact["factor"].square().mean().sqrt()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("own_walls", [False, True])
def test_every_parameter_receives_gradient_at_the_first_step(pooling, own_walls):
    scenes = scenes_of(UNIT, own_walls=own_walls)
    net = net_of(UNIT, pooling=pooling, dropout=0.1)

    loss_of(outputs_of(net, scenes), scenes, UNIT).backward()

    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_backbone_and_head_hold_all_parameters():
    net = net_of(UNIT)

    parts = [*net.backbone.parameters(), *net.head.parameters()]

    assert {id(p) for p in parts} == {id(p) for p in net.parameters()}
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_settings_build_the_network_again(pooling):
    scenes = scenes_of(UNIT)
    net = net_of(UNIT, layers=1, heads=2, pooling=pooling, hidden=3, rank=5).eval()

    again = CovarianceTransformer(UNIT, **net.settings).eval()
    again.load_state_dict(net.state_dict())

    first, second = (outputs_of(one, scenes)["factor"] for one in (net, again))
    assert torch.equal(first, second)


def test_odd_numbers_of_antennas_codes_sources_and_snapshots_work():
    config = replace(UNIT, side=5, antennas=3, codes=7, max_sources=3, snapshots=5)

    outputs = outputs_of(net_of(config), scenes_of(config, 3))

    assert outputs["factor"].shape == (3, 25, config.rank, 2)
    assert outputs["factor"].isfinite().all()


def test_one_wall_for_all_gives_what_the_same_wall_for_each_gives():
    scenes, net = scenes_of(UNIT), net_of(UNIT)
    wall = scenes.installation
    codes_BLN, channel_BMN = (x.expand(16, -1, -1) for x in (wall.codes_BLN, wall.channel_BMN))

    shared = outputs_of(net, scenes)["factor"]
    own = net(scenes.sample_BLMM, codes_BLN, channel_BMN)["factor"]

    # Two orders of summation in fp32, through whitening by a C_l of condition below 100.
    torch.testing.assert_close(shared, own, rtol=0, atol=1e-4)


def test_codes_and_channel_are_inputs():
    scenes, net = scenes_of(UNIT), net_of(UNIT)
    wall, other = scenes.installation, scenes_of(UNIT, 1, own_walls=True, seed=5).installation
    right = outputs_of(net, scenes)["factor"]

    for codes, channel in (
        (other.codes_BLN, wall.channel_BMN),
        (wall.codes_BLN, other.channel_BMN),
    ):
        wrong = net(scenes.sample_BLMM, codes, channel)["factor"]

        assert (wrong - right).norm() > 0.05 * right.norm()


def test_scenes_of_a_batch_do_not_meet():
    scenes, net = scenes_of(UNIT), net_of(UNIT).eval()

    together = outputs_of(net, scenes)["factor"][3:5]
    alone = outputs_of(net, scenes.select(slice(3, 5)))["factor"]

    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_truth_does_not_reach_the_network():
    scenes, net = scenes_of(UNIT), net_of(UNIT).eval()

    factor = outputs_of(net, scenes.blinded())["factor"]

    assert torch.equal(factor, outputs_of(net, scenes)["factor"])


def test_random_weights_collapse():
    scenes, net = scenes_of(TINY, 200), net_of(TINY)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))

        factor_BNR, _ = factor_from(outputs_of(net, scenes))

    # Ridge matching, 0 dB, misses 0.77; a random subspace 1 − 1.5/36 = 0.96.
    assert factor_subspace_error(factor_BNR, scenes).mean() > 0.77


def test_a_poisoned_weight_gives_nonfinite_outputs_and_no_exception():
    scenes, net = scenes_of(UNIT), net_of(UNIT)
    with torch.no_grad():
        net.head.outer.weight.fill_(torch.nan)

    outputs = outputs_of(net, scenes)

    assert not any(value.isfinite().all() for value in outputs.values())
    assert not loss_of(outputs, scenes, UNIT).isfinite()


@pytest.mark.parametrize(
    "wrong", [{"layers": 0}, {"rank": 0}, {"hidden": 0}, {"width": 30, "heads": 4}]
)
def test_sizes_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match="write 1 or more"):
        net_of(UNIT, **wrong)


def test_an_unknown_pooling_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="flatten, slots, mean"):
        net_of(UNIT, pooling="max")


def test_the_width_of_every_size_divides_among_8_heads_at_half_too():
    assert all(base_width(config) // 2 % 8 == 0 for config in SIZES.values())
