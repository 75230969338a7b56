"""MUSIC per code is blind to the truth, and finds what can be found.

Shapes: B scenes, K sources.
"""

from dataclasses import replace

import pytest
import torch

import models.pseudospectra as pseudospectra
from models.array import SIZES, draw_installation, draw_scenes
from models.metric import position_error_m, position_subspace_error
from models.pseudospectra import music_per_code

UNIT, TINY = SIZES["unit"], SIZES["tiny"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(config, n, *, seed=0, is_shared=True):
    installation = draw_installation(config, seeded(seed)) if is_shared else None
    return draw_scenes(config, n, seeded(seed + 1), installation=installation)


def blinded(scenes):
    """The scenes without their truth, but for the number of sources."""
    nan = {
        name: torch.full_like(getattr(scenes, name), torch.nan)
        for name in ("steering_BNK", "powers_BK", "positions_BK3", "noise_B", "snr_db_B")
    }
    return replace(scenes, **nan)


@pytest.mark.parametrize("is_shared", [True, False])
def test_music_never_sees_the_truth_and_does_not_depend_on_chunks(is_shared, monkeypatch):
    scenes = drawn(UNIT, 12, is_shared=is_shared)

    seeing_BK3 = music_per_code(scenes, UNIT)
    blind_BK3 = music_per_code(blinded(scenes), UNIT)
    monkeypatch.setattr(pseudospectra, "_CHUNK_BYTES", 1)
    alone_BK3 = music_per_code(scenes, UNIT)

    assert torch.equal(seeing_BK3.nan_to_num(9), blind_BK3.nan_to_num(9))
    assert (seeing_BK3.isnan().any(-1) == ~scenes.source_mask_BK).all()
    # Another chunk is another order of float32 sums; near a flat peak in range this moves the
    # refined point by a last step of 1/100 grid step, 1e-2 in 1/r. All but a few agree to that.
    near = (seeing_BK3 - alone_BK3).abs().amax(-1)[scenes.source_mask_BK] < 2e-2
    assert near.float().mean() > 0.8


def test_music_finds_a_single_source_without_noise():
    config = replace(TINY, max_sources=1, snr_min_db=80.0, snr_max_db=80.0)
    scenes = drawn(config, 40)

    positions_BK3 = music_per_code(blinded(scenes), config)

    # A last step of 1/100 grid step is 1e-3 rad; a star search may stop short of it along the
    # diagonal valley of angle and range. ε ~ (phase error)²: 1e-3 leaves 0.03 rad rms.
    assert position_subspace_error(positions_BK3, scenes, config).median() < 1e-3
    assert position_error_m(positions_BK3, scenes).median() < 0.02
    low = torch.tensor([-config.azimuth_max_rad, -config.elevation_max_rad, config.range_min_m])
    high = torch.tensor([config.azimuth_max_rad, config.elevation_max_rad, config.range_max_m])
    assert (positions_BK3 >= low - 1e-5).all()
    assert (positions_BK3 <= high + 1e-5).all()


def test_music_gains_from_snapshots_as_a_subspace_method_must():
    errors = []
    for snapshots in (1, 8):
        config = replace(TINY, snapshots=snapshots)
        scenes = drawn(config, 100)
        found_BK3 = music_per_code(blinded(scenes), config)
        errors.append(position_subspace_error(found_BK3, scenes, config).mean())

    # .22 and .05 over 1,000 scenes; a standard error over 100 is 0.02.
    assert errors[1] < 0.5 * errors[0]
