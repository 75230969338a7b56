"""Scenes are what their formulas say: labels, snapshots, noise, sources.

Shapes: B scenes, N elements, M antennas, L codes, T snapshots, K sources.
"""

from dataclasses import replace
from math import sqrt

import pytest
import torch

from models.ris.scene.scenes import (
    MAX_CORRELATION,
    NOISE_FLOOR,
    SIZES,
    Installation,
    draw_installation,
    draw_scenes,
    stream_generator,
)

UNIT = SIZES["unit"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def shared(config, seed=0):
    return draw_installation(config, seeded(seed))


def test_labels_have_trace_n_and_noise_at_the_floor_or_above():
    scenes = draw_scenes(SIZES["base"], 200, seeded())

    R_BNN = scenes.factor_BNK @ scenes.factor_BNK.mH

    trace_B = R_BNN.diagonal(dim1=-2, dim2=-1).sum(-1)
    # Sums of 64 terms in float32: 64 · 2⁻²⁴ relative at worst.
    torch.testing.assert_close(
        trace_B, torch.full((200,), 64, dtype=torch.complex64), rtol=4e-6, atol=4e-4
    )
    assert (scenes.noise_B >= NOISE_FLOOR).all()
    assert NOISE_FLOOR == 1e-3


def test_noise_floor_holds_in_the_label_and_not_in_the_snapshots():
    config = replace(UNIT, snr_min_db=60.0, snr_max_db=60.0, snapshots=64)

    scenes = draw_scenes(config, 8, seeded(), installation=shared(config))

    assert (scenes.noise_B == torch.tensor(NOISE_FLOOR)).all()
    assert (scenes.snr_db_B == 60).all()
    # 4 antennas see at most 2 sources: what is outside their span is noise of σ² ~ 1e-6 of the
    # power, each eigenvalue within [(1 − √(4/64))², (1 + √(4/64))²] of it; a floor would give 1e-3.
    values_BLM = torch.linalg.eigvalsh(scenes.sample_BLMM.to(torch.complex128))
    assert values_BLM[..., :2].max() < 1e-4


def test_absent_sources_are_nan_positions_zero_columns_and_zero_powers():
    scenes = draw_scenes(SIZES["full"], 300, seeded(), installation=shared(SIZES["full"]))

    mask_BK = scenes.source_mask_BK
    assert (mask_BK.int().diff(dim=-1) <= 0).all(), "present sources come first"
    assert (scenes.positions_BK3.isnan().all(-1) == ~mask_BK).all()
    assert (scenes.powers_BK[~mask_BK] == 0).all()
    assert (scenes.steering_BNK.abs().amax(-2)[~mask_BK] == 0).all()
    assert (scenes.powers_BK[mask_BK] > 0).all()


def test_sources_are_uniform_in_number_angle_and_inverse_range_and_within_their_powers():
    config, n = SIZES["full"], 4000

    scenes = draw_scenes(config, n, seeded(), installation=shared(config))

    count_K = torch.bincount(scenes.source_mask_BK.sum(-1), minlength=6)[1:]
    # Binomial: five standard deviations around n/K.
    assert (count_K - n / 5).abs().max() < 5 * sqrt(n * 0.2 * 0.8)
    present_X3 = scenes.positions_BK3[scenes.source_mask_BK]
    near, far = 1 / config.range_min_m, 1 / config.range_max_m
    unit_X3 = torch.stack(
        (
            (present_X3[:, 0] / config.azimuth_max_rad + 1) / 2,
            (present_X3[:, 1] / config.elevation_max_rad + 1) / 2,
            (1 / present_X3[:, 2] - far) / (near - far),
        ),
        dim=-1,
    )
    assert unit_X3.min() > -1e-5
    assert unit_X3.max() < 1 + 1e-5
    # Moments of a uniform variable: mean 1/2 ± √(1/12), variance 1/12 ± √(1/180); five errors of
    # each. Refusing layouts of close sources touches 0.3 % of the scenes, far below.
    m = len(unit_X3)
    assert (unit_X3.mean(0) - 1 / 2).abs().max() < 5 * sqrt(1 / 12 / m)
    assert (unit_X3.var(0) - 1 / 12).abs().max() < 5 * sqrt(1 / 180 / m)
    power_db_BK = 10 * scenes.powers_BK.log10()
    weakest_B = power_db_BK.masked_fill(~scenes.source_mask_BK, torch.inf).amin(-1)
    assert (power_db_BK.amax(-1) - weakest_B).max() <= 2 * config.power_spread_db + 1e-4


@pytest.mark.parametrize("size", ["unit", "full"])
def test_no_two_sources_of_a_scene_are_nearly_identical(size):
    config = SIZES[size]

    scenes = draw_scenes(config, 3000, seeded(), installation=shared(config))

    gram_BKK = (scenes.steering_BNK.mH @ scenes.steering_BNK).abs() / config.elements
    # Plain draws put 1.5 % (unit) of the scenes with two sources beyond; 1e-5 is rounding.
    assert gram_BKK.triu(diagonal=1).max() <= MAX_CORRELATION + 1e-5


@pytest.mark.parametrize("is_shared", [True, False])
def test_snr_is_the_mean_signal_power_over_the_noise(is_shared):
    installation = shared(UNIT) if is_shared else None
    scenes = draw_scenes(UNIT, 100, seeded(1), installation=installation)

    seen_BLMK = scenes.installation.sensing_BLMN @ scenes.factor_BNK.unsqueeze(1)
    signal_B = seen_BLMK.abs().square().sum((-2, -1)).mean(-1)
    snr_db_B = 10 * (signal_B / (UNIT.antennas * scenes.noise_B)).log10()

    is_above = scenes.noise_B > NOISE_FLOOR
    assert is_above.sum() > 90
    # Float32 sums of some hundred terms: 1e-5 relative is 4e-5 dB.
    torch.testing.assert_close(snr_db_B[is_above], scenes.snr_db_B[is_above], rtol=0, atol=1e-3)
    assert scenes.snr_db_B.min() >= UNIT.snr_min_db
    assert scenes.snr_db_B.max() <= UNIT.snr_max_db


def test_snapshots_have_the_covariance_of_the_label_and_fresh_symbols():
    t = 20_000
    config = replace(UNIT, codes=3, snapshots=t, max_sources=2)
    scenes = draw_scenes(config, 6, seeded(2), installation=shared(config))
    assert (scenes.noise_B > NOISE_FLOOR).all()

    y_BLMT = scenes.snapshots_BLMT
    R_BNN = scenes.factor_BNK @ scenes.factor_BNK.mH
    sensing_BLMN = scenes.installation.sensing_BLMN
    expected_BLMM = sensing_BLMN @ R_BNN.unsqueeze(1) @ sensing_BLMN.mH
    expected_BLMM = expected_BLMM + scenes.noise_B[:, None, None, None] * torch.eye(config.antennas)
    power_BLM1 = expected_BLMM.diagonal(dim1=-2, dim2=-1).real.sqrt().unsqueeze(-1)

    # Complex Gaussian: an entry of the sample covariance errs by √(R_ii R_jj / T); over the 288
    # entries five of those are never reached. The same holds for codes l ≠ m, where fresh symbols
    # make the expectation zero.
    error_BLMM = (y_BLMT @ y_BLMT.mH / t - expected_BLMM) / (power_BLM1 * power_BLM1.mT)
    assert error_BLMM.abs().max() < 5 / sqrt(t)
    crossed_BMM = y_BLMT[:, 0] @ y_BLMT[:, 1].mH / t / (power_BLM1[:, 0] * power_BLM1[:, 1].mT)
    assert crossed_BMM.abs().max() < 5 / sqrt(t)
    # Circular: E[y yᵀ] = 0; its entries err by up to √2 more (the diagonal).
    pseudo_BLMM = y_BLMT @ y_BLMT.mT / t / (power_BLM1 * power_BLM1.mT)
    assert pseudo_BLMM.abs().max() < 5 * sqrt(2) / sqrt(t)


def test_sample_is_hermitian_with_mean_trace_one_whatever_the_snapshots_scale():
    scenes = draw_scenes(replace(UNIT, snapshots=3), 50, seeded())

    sample_BLMM = scenes.sample_BLMM

    torch.testing.assert_close(sample_BLMM, sample_BLMM.mH)
    trace_B = sample_BLMM.diagonal(dim1=-2, dim2=-1).real.sum(-1).mean(-1)
    torch.testing.assert_close(trace_B, torch.ones(50))
    y_BLMT = scenes.snapshots_BLMT
    ratio = (y_BLMT @ y_BLMT.mH) / sample_BLMM
    # One scale for the whole scene: the ratio of power between codes is information.
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio), rtol=1e-4, atol=0)


@pytest.mark.parametrize("is_shared", [True, False])
def test_selecting_and_moving_keep_scenes_whole(is_shared):
    scenes = draw_scenes(UNIT, 10, seeded(), installation=shared(UNIT) if is_shared else None)

    index = torch.tensor([7, 2])
    part = scenes.select(index).to("cpu")

    assert (len(scenes), len(part)) == (10, 2)
    assert len(part.installation) == (1 if is_shared else 2)
    torch.testing.assert_close(part.positions_BK3, scenes.positions_BK3[index], equal_nan=True)
    for name in (
        "snapshots_BLMT",
        "sample_BLMM",
        "steering_BNK",
        "powers_BK",
        "noise_B",
        "snr_db_B",
    ):
        assert torch.equal(getattr(part, name), getattr(scenes, name)[index])
    sensing = scenes.installation.sensing_BLMN
    assert torch.equal(part.installation.sensing_BLMN, sensing if is_shared else sensing[index])


def test_a_wall_of_ones_own_gives_the_scene_of_a_shared_wall():
    one = shared(UNIT)
    each = Installation(one.channel_BMN.expand(5, -1, -1), one.codes_BLN.expand(5, -1, -1))

    of_shared = draw_scenes(UNIT, 5, seeded(), installation=one)
    of_each = draw_scenes(UNIT, 5, seeded(), installation=each)

    # Two orders of the same float32 sum over N = 16.
    torch.testing.assert_close(
        of_shared.snapshots_BLMT, of_each.snapshots_BLMT, rtol=1e-4, atol=1e-5
    )


def test_dtypes_are_single_precision_throughout():
    scenes = draw_scenes(UNIT, 2, seeded())

    for name in ("snapshots_BLMT", "sample_BLMM", "steering_BNK", "factor_BNK"):
        assert getattr(scenes, name).dtype == torch.complex64
    for name in ("powers_BK", "positions_BK3", "noise_B", "snr_db_B"):
        assert getattr(scenes, name).dtype == torch.float32
    assert scenes.installation.sensing_BLMN.dtype == torch.complex64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_scenes_are_drawn_on_the_device_of_their_generator():
    generator = stream_generator(0, "train", 3, trial_seed=1, device="cuda")

    scenes = draw_scenes(UNIT, 4, generator, installation=shared(UNIT).to("cuda"))

    assert scenes.snapshots_BLMT.is_cuda
    assert scenes.to("cpu").installation.codes_BLN.device.type == "cpu"
