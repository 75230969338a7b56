"""The network: what it promises about inputs, precision, gradients and physics."""

from __future__ import annotations

import pytest
import torch

from models.ris.network.covariance_net import RisCovarianceNet, factor_from
from models.ris.network.losses import (
    covariance_error,
    gaussian_nll,
    peak_contrast,
    ring_steering,
    subspace_alignment,
)
from models.ris.scene.scenes import (
    NOISE_FLOOR,
    SIZES,
    Installation,
    Scenes,
    draw_installation,
    draw_scenes,
    stream_generator,
)
from models.ris.truth.metric import factor_subspace_error
from tests.support.toys import Operators

UNIT, TINY = SIZES["unit"], SIZES["tiny"]


def scenes_of(config, count: int = 16, *, seed: int = 0, own_walls: bool = False) -> Scenes:
    wall = None if own_walls else draw_installation(config, stream_generator(0, "installation"))
    generator = stream_generator(0, "train", trial_seed=seed)
    return draw_scenes(config, count, generator, installation=wall)


def net_of(config, *, seed: int = 0, **sizes) -> RisCovarianceNet:
    torch.manual_seed(seed)
    return RisCovarianceNet(config, **{"width": 32, "layers": 2, **sizes})


def outputs_of(net: RisCovarianceNet, scenes: Scenes) -> dict[str, torch.Tensor]:
    wall = scenes.installation
    return net(scenes.sample_BLMM, wall.codes_BLN, wall.channel_BMN)


def loss_of(outputs: dict[str, torch.Tensor], scenes: Scenes, config) -> torch.Tensor:
    factor_BNR, noise_B = factor_from(outputs)
    label = (factor_BNR, noise_B, scenes.factor_BNK, scenes.noise_B)
    contrast_B = peak_contrast(
        factor_BNR,
        noise_B,
        steering_BNK=scenes.steering_BNK,
        ring_BNKP=ring_steering(scenes.positions_BK3, config),
        mask_BK=scenes.source_mask_BK,
    )
    missed_B = subspace_alignment(factor_BNR, scenes.factor_BNK, scenes.source_mask_BK)
    return (covariance_error(*label) + gaussian_nll(*label) + missed_B + contrast_B).mean()


@pytest.mark.parametrize("size", ["unit", "tiny", "base", "full"])
@pytest.mark.parametrize("own_walls", [False, True])
def test_a_factor_of_the_asked_rank_comes_out_at_every_size(size, own_walls):
    config = SIZES[size]
    scenes = scenes_of(config, 2, own_walls=own_walls)

    outputs = outputs_of(net_of(config, rank=7), scenes)

    factor_BNR, noise_B = factor_from(outputs)
    assert factor_BNR.shape == (2, config.elements, 7)
    assert factor_BNR.dtype == torch.complex64
    assert all(not value.is_complex() for value in outputs.values())
    assert (noise_B >= NOISE_FLOOR).all()
    trace_B = factor_BNR.abs().square().sum((-2, -1))
    # All of R's trace N but what a broad posterior holds outside of 7 directions.
    assert ((trace_B > 0.2 * config.elements) & (trace_B < 1.01 * config.elements)).all()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_every_parameter_receives_gradient_at_the_first_step(layers, rank):
    scenes, net = scenes_of(UNIT), net_of(UNIT, layers=layers, rank=rank, dropout=0.1)

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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_changes_decisions_by_its_rounding_only(dtype):
    scenes, net = scenes_of(UNIT, 64), net_of(UNIT, layers=1)

    exact_B = factor_subspace_error(factor_from(outputs_of(net, scenes))[0], scenes)
    with torch.autocast("cpu", dtype=dtype):
        half_B = factor_subspace_error(factor_from(outputs_of(net, scenes))[0], scenes)

    # A sharpness and a prior off by bfloat16's 4e-3 of values under 3 move weights by 1-2 %.
    assert (half_B - exact_B).abs().mean() < 0.02


def test_one_wall_for_all_gives_what_the_same_wall_for_each_gives():
    scenes, net = scenes_of(UNIT), net_of(UNIT)
    wall = scenes.installation
    codes_BLN, channel_BMN = (x.expand(16, -1, -1) for x in (wall.codes_BLN, wall.channel_BMN))

    shared_BNR, shared_noise_B = factor_from(outputs_of(net, scenes))
    own_BNR, own_noise_B = factor_from(net(scenes.sample_BLMM, codes_BLN, channel_BMN))

    # Two orders of summation in fp32, through conditions of R up to 250, twice.
    close = {"rtol": 0, "atol": 2e-2}
    torch.testing.assert_close(shared_BNR @ shared_BNR.mH, own_BNR @ own_BNR.mH, **close)
    torch.testing.assert_close(shared_noise_B, own_noise_B, **close)


def test_codes_and_channel_are_inputs():
    scenes, net = scenes_of(UNIT), net_of(UNIT)
    wall, other = scenes.installation, scenes_of(UNIT, 1, own_walls=True, seed=5).installation
    right_B = factor_subspace_error(factor_from(outputs_of(net, scenes))[0], scenes)

    for codes, channel in (
        (other.codes_BLN, wall.channel_BMN),
        (wall.codes_BLN, other.channel_BMN),
    ):
        factor_BNR, _ = factor_from(net(scenes.sample_BLMM, codes, channel))

        # A wrong wall must leave the network lost: a random subspace misses 1 − K/N = 0.9.
        assert factor_subspace_error(factor_BNR, scenes).mean() > right_B.mean() + 0.2


def test_a_wall_never_seen_is_as_good_as_another():
    scenes, net = scenes_of(TINY, 200, own_walls=True), net_of(TINY)

    error_B = factor_subspace_error(factor_from(outputs_of(net, scenes))[0], scenes)

    # Ridge matching misses 0.77; a factor 0.4 is 4 dB, which an untrained network has by physics.
    assert error_B.mean() < 0.4 * 0.77


def test_every_layer_comes_closer_to_a_clear_source():
    scenes = scenes_of(TINY, 300)
    clear = scenes.select((scenes.snr_db_B > 12) & (scenes.source_mask_BK.sum(-1) == 1))

    with torch.no_grad():
        errors = [
            factor_subspace_error(factor_from(outputs_of(net_of(TINY, layers=n), clear))[0], clear)
            for n in (1, 2, 4)
        ]

    one, two, four = (float(error_B.median()) for error_B in errors)
    # The grid's cells are half of the beam's peak-to-null wide; zooms of 1/2, 1/4 and 1/8 follow.
    assert one < 0.1
    assert two < one / 3
    assert four < two / 1.5


def test_scenes_of_a_batch_do_not_meet():
    scenes, net = scenes_of(UNIT), net_of(UNIT).eval()

    together, _ = factor_from(outputs_of(net, scenes))
    alone, _ = factor_from(outputs_of(net, scenes.select(slice(3, 5))))

    # Batched products of other sizes may sum in another order.
    together, alone = (f @ f.mH for f in (together[3:5], alone))
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-2)


def test_dropout_acts_in_training_alone():
    scenes, net = scenes_of(UNIT), net_of(UNIT, dropout=0.5)

    first, second = (outputs_of(net, scenes)["factor"] for _ in range(2))
    assert not torch.equal(first, second)
    net.eval()
    first, second = (outputs_of(net, scenes)["factor"] for _ in range(2))
    assert torch.equal(first, second)


def test_a_poisoned_weight_gives_nonfinite_outputs_and_no_exception():
    scenes, net = scenes_of(UNIT), net_of(UNIT)
    with torch.no_grad():
        net.head.control.weight.fill_(torch.nan)

    outputs = outputs_of(net, scenes)

    assert not any(value.isfinite().all() for value in outputs.values())
    assert not loss_of(outputs, scenes, UNIT).isfinite()


def test_a_checkpoint_holds_parameters_alone_and_restores_the_network():
    scenes, net, other = scenes_of(UNIT), net_of(UNIT), net_of(UNIT, seed=1)

    other.load_state_dict(net.state_dict())

    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}
    assert torch.equal(outputs_of(net, scenes)["factor"], outputs_of(other, scenes)["factor"])


def test_forty_steps_lower_the_loss():
    net = net_of(UNIT)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    held_out = scenes_of(UNIT, 400, seed=1)
    wall: Installation = held_out.installation

    def held_out_loss() -> float:
        with torch.no_grad():
            return float(loss_of(outputs_of(net, held_out), held_out, UNIT))

    before = held_out_loss()
    for step in range(40):
        generator = stream_generator(0, "train", step, trial_seed=0)
        scenes = draw_scenes(UNIT, 64, generator, installation=wall)
        optimizer.zero_grad()
        loss_of(outputs_of(net, scenes), scenes, UNIT).backward()
        optimizer.step()

    assert held_out_loss() < 0.9 * before


@pytest.mark.parametrize("wrong", [{"width": 0}, {"layers": 0}, {"rank": 0}])
def test_sizes_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="write 1 or more"):
        net_of(UNIT, **wrong)


def test_constants_kept_from_one_wall_serve_no_other():
    scenes = scenes_of(UNIT)
    wall = scenes.installation
    kept = net_of(UNIT, oversampling=0.8)
    before = outputs_of(kept, scenes)
    again = outputs_of(kept, scenes)

    # Codes changed in place, which neither the tensor's identity nor its address shows.
    wall.codes_BLN[0, 3] *= -1j
    found = outputs_of(kept, scenes)
    expected = outputs_of(net_of(UNIT, oversampling=0.8), scenes)

    for name in ("factor", "log_noise"):
        torch.testing.assert_close(again[name], before[name], rtol=0, atol=0)
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
        assert not torch.equal(found[name], before[name])


def test_a_network_that_first_ran_in_inference_mode_trains():
    scenes, net = scenes_of(UNIT), net_of(UNIT, oversampling=0.8)

    with torch.inference_mode():
        outputs_of(net, scenes)
    loss_of(outputs_of(net, scenes), scenes, UNIT).backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
