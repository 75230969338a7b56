"""The stored limits: known again by their scenes, consistent, and part of the package."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.ris.evaluation import GUESS, LIMIT, Method, guess, scored_set
from models.ris.limit.reference import FILE, fingerprint, limit_of, stored
from models.ris.problem import wall
from models.ris.scene.scenes import SIZES, draw_scenes
from models.ris.scene.streams import stream_generator
from objectives.ris_evaluation import tables
from objectives.ris_evaluation.bench import QUICK_SCENES, drawn

UNIT = SIZES["unit"]
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def validation():
    shared = wall("unit", UNIT.problem_seed, "fixed", "cpu")
    generator = stream_generator(UNIT.problem_seed, "validation")
    return draw_scenes(UNIT, 200, generator, installation=shared)


def test_the_frozen_sets_of_a_size_have_their_limits(validation):
    shared = wall("unit", UNIT.problem_seed, "fixed", "cpu")

    limit = limit_of(validation)
    quick = limit_of(drawn(UNIT, shared, -5.0, count=QUICK_SCENES))

    assert (limit.size, limit.name) == ("unit", "validation")
    assert (quick.size, quick.name) == ("unit", "quick test -5 dB")
    assert quick.epsilon > limit.epsilon


def test_other_scenes_have_no_limit(validation):
    shared = validation.installation
    codes_BLN = shared.codes_BLN.clone()
    codes_BLN[:, -1, -1] *= -1

    others = {
        "another seed": drawn(UNIT, shared, -5.0, seed=1, count=QUICK_SCENES),
        "fewer": validation.select(slice(0, 100)),
        "another order": validation.select(torch.arange(199, -1, -1)),
        "other codes": replace(validation, installation=replace(shared, codes_BLN=codes_BLN)),
        "no labels": validation.blinded(),
        "more snapshots": drawn(UNIT, shared, -5.0, count=QUICK_SCENES, snapshots=4),
        "own walls": draw_scenes(UNIT, 200, stream_generator(UNIT.problem_seed, "validation")),
    }

    assert {name: limit_of(scenes) for name, scenes in others.items()} == dict.fromkeys(others)


def test_the_accuracy_of_a_frozen_test_set_has_a_row_for_the_limit():
    shared = wall("unit", UNIT.problem_seed, "fixed", "cpu")
    method = Method(GUESS, lambda some: guess(some.source_mask_BK, UNIT), is_final=True)
    frozen, fresh = (drawn(UNIT, shared, 10.0, seed=seed, count=QUICK_SCENES) for seed in (0, 1))

    found = tables.accuracy(
        [
            scored_set(label, scenes, UNIT, [method], tell=lambda line: None)
            for label, scenes in (("frozen", frozen), ("fresh", fresh))
        ]
    )

    rows = {(row[0], row[1]): dict(zip(found.head, row, strict=True)) for row in found.rows}
    assert rows["frozen", LIMIT]["ε"] == limit_of(frozen).epsilon
    assert rows["frozen", LIMIT]["ε"] < rows["frozen", GUESS]["ε"]
    assert ("fresh", LIMIT) not in rows


def test_rounding_leaves_a_set_known(validation):
    # Of another host: errors of float32 in all that is computed.
    rounded = replace(validation, snapshots_BLMT=validation.snapshots_BLMT * (1 + 1e-6))

    assert fingerprint(rounded) != fingerprint(validation)
    assert limit_of(rounded) == limit_of(validation)


def test_the_stored_figures_agree_with_each_other():
    assert len({(limit.size, limit.name) for limit in stored()}) == len(stored())
    for limit in stored():
        assert limit.problem_seed == SIZES[limit.size].problem_seed
        assert 0 < limit.epsilon < 1
        # Both runs err by √2 of their mean's error, and their means a little upwards.
        for epsilon in limit.runs:
            assert abs(epsilon - limit.epsilon) < 5 * limit.error + 2e-3, limit
        # E[A P Aᴴ] serves another aim, so its eigenvectors do no better.
        assert limit.covariance_epsilon > limit.epsilon - 5 * limit.error - 2e-3


def test_the_figures_are_in_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

    assert FILE.exists()
    assert FILE.name in project["package-data"]["models.ris.limit"]
