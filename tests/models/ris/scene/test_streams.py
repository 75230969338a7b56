"""Training, validation, calibration and test draws never meet."""

import pytest
import torch

from models.ris.scene.scenes import (
    SIZES,
    draw_installation,
    draw_scenes,
    stream_generator,
    stream_seed,
)

UNIT = SIZES["unit"]
SHARED_STREAMS = ("installation", "validation", "calibration", "ridge", "test")


WALL = draw_installation(UNIT, stream_generator(UNIT.problem_seed, "installation"))


def test_streams_differ_in_the_bits_that_the_cpu_generator_uses():
    train = {stream_seed(0, "train", step, trial_seed=s) for s in range(20) for step in range(200)}
    others = [{stream_seed(0, name, index) for index in range(200)} for name in SHARED_STREAMS]

    # mt19937 takes 32 of the 63 bits, so disjoint seeds are not enough.
    low = [{seed % 2**32 for seed in seeds} for seeds in (train, *others)]
    assert sum(map(len, low)) == len(set().union(*low)), "streams share a state"
    # By construction and not by luck: each stream has a residue of its own.
    residues = [{seed % 8 for seed in seeds} for seeds in (train, *others)]
    assert [len(r) for r in residues] == [1] * 6
    assert len(set().union(*residues)) == 6
    assert all(0 <= seed < 2**63 for seed in train.union(*others))
    steps = {stream_seed(0, "train", step, trial_seed=3) % 2**32 for step in range(30_000)}
    assert len(steps) == 30_000, "no step of a trial repeats another"


def test_training_scenes_of_a_step_depend_on_trial_seed_and_step_alone():
    def scene(step, trial_seed):
        generator = stream_generator(UNIT.problem_seed, "train", step, trial_seed=trial_seed)
        return draw_scenes(UNIT, 4, generator, installation=WALL).snapshots_BLMT

    first = scene(5, 1)
    scene(6, 1)

    assert torch.equal(first, scene(5, 1))
    assert not torch.equal(first, scene(6, 1))
    assert not torch.equal(first, scene(5, 2))


def test_training_and_frozen_sets_share_no_scene():
    def azimuths(generator, n):
        scenes = draw_scenes(UNIT, n, generator, installation=WALL)
        return set(scenes.positions_BK3[:, 0, 0].tolist())

    frozen = [azimuths(stream_generator(0, s), 500) for s in ("validation", "test", "calibration")]
    train = set().union(
        *(azimuths(stream_generator(0, "train", i, trial_seed=0), 64) for i in range(20))
    )

    # Float32 azimuths have 2²⁴ values: 1.9e3 · 1e3 pairs / 2²⁴ = 0.2 meet by chance across sets, so
    # that three or more is not chance.
    assert sum(len(train & other) for other in frozen) < 3
    assert len(frozen[0] & frozen[1]) < 3


def test_a_problem_seed_gives_another_problem():
    def codes(seed):
        return draw_installation(UNIT, stream_generator(seed, "installation")).codes_BLN

    assert torch.equal(codes(0), codes(0))
    assert not torch.equal(codes(0), codes(1))


def test_streams_refuse_what_would_break_their_promise():
    with pytest.raises(ValueError, match="no stream named 'valid'"):
        stream_seed(0, "valid")
    with pytest.raises(ValueError, match="trial_seed"):
        stream_seed(0, "train", 3)
    with pytest.raises(ValueError, match="trial_seed"):
        stream_seed(0, "validation", trial_seed=1)
    with pytest.raises(ValueError, match="drawn on the CPU"):
        stream_generator(0, "validation", device="cuda")
