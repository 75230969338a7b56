"""Every estimator is blind to the truth and keeps to the region; what pseudospectra find.

Shapes: B scenes, N elements, K sources.
"""

from dataclasses import replace

import pytest
import torch

import models.ris.estimators.pseudospectra as pseudospectra
from models.ris.estimators import ridge as estimators
from models.ris.estimators.peaks import find_peaks
from models.ris.estimators.ridge import (
    RidgeMatching,
    back_projection,
    bartlett_per_code,
    greedy_maximum_likelihood,
    mdl_count,
    music_of_covariance,
    music_of_factor,
    music_per_code,
    mvdr_per_code,
    refined_positions,
)
from models.ris.scene.scenes import SIZES
from models.ris.truth.metric import position_error_m, position_subspace_error
from tests.support.drawn_scenes import blinded, drawn, seeded

UNIT, TINY, BASE = SIZES["unit"], SIZES["tiny"], SIZES["base"]
PER_CODE = {
    "bartlett_per_code": bartlett_per_code,
    "mvdr_per_code": mvdr_per_code,
    "music_per_code": music_per_code,
}


def ridge(scenes):
    return RidgeMatching(scenes.installation, loading=0.1)(scenes.sample_BLMM)


def music_of_some_factor(scenes, config):
    """The network's part played by back-projection: F is its dominant directions."""
    R_BNN = back_projection(scenes.sample_BLMM, scenes.installation)
    values_BN, vectors_BNN = torch.linalg.eigh(R_BNN)
    factor_BNR = vectors_BNN[..., -config.rank :] * values_BN[:, None, -config.rank :].sqrt()
    return music_of_factor(factor_BNR, scenes.source_mask_BK, config)


def counted(scenes, config):
    return mdl_count(greedy_maximum_likelihood(scenes, config), config.codes * config.snapshots)


# A newcomer to `models.ris.estimators.ridge` owes a line here: from scenes and a size to a tensor.
ESTIMATORS = {
    **PER_CODE,
    "back_projection": lambda s, _: back_projection(s.sample_BLMM, s.installation),
    "RidgeMatching": lambda s, _: ridge(s),
    "music_of_covariance": lambda s, c: music_of_covariance(ridge(s), s.source_mask_BK, c),
    "music_of_factor": music_of_some_factor,
    "greedy_maximum_likelihood": lambda s, c: (
        greedy_maximum_likelihood(s, c, mask_BK=s.source_mask_BK)[-1].positions_BK3
    ),
    "refined_positions": lambda s, c: refined_positions(mvdr_per_code(s, c), s, c),
    "mdl_count": counted,
}
# Snapshots, and whether the wall is shared.
CASES = {
    "unit": (UNIT, 1, True),
    "snapshots": (UNIT, 3, False),
    "antennas": (UNIT, 6, True),
    "base": (replace(BASE, codes=8), 1, False),  # of up to three sources
}


def test_every_estimator_has_its_line():
    assert set(ESTIMATORS) == set(estimators.__all__) - {"LOADINGS"}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_never_sees_the_truth_and_keeps_to_what_there_can_be(name, case):
    size, snapshots, is_shared = CASES[case]
    config = replace(size, snapshots=snapshots)
    scenes = drawn(config, 5, is_shared=is_shared)
    mask_BK = scenes.source_mask_BK

    seeing = ESTIMATORS[name](scenes, config)
    blind = ESTIMATORS[name](blinded(scenes), config)

    assert len(set(mask_BK.sum(-1).tolist())) > 1
    assert torch.equal(seeing.isnan(), blind.isnan())
    assert torch.equal(seeing.nan_to_num(9), blind.nan_to_num(9))
    if seeing.shape == scenes.positions_BK3.shape:
        assert seeing.dtype == torch.float32
        assert torch.equal(seeing.isnan(), ~mask_BK.unsqueeze(-1).expand_as(seeing))
        limits = (config.azimuth_max_rad, config.elevation_max_rad, config.range_max_m)
        # A reciprocal and back in float32.
        assert (seeing[mask_BK].abs() <= torch.tensor(limits) + 1e-5).all()
        assert (seeing[mask_BK][:, 2] >= config.range_min_m - 1e-5).all()
    elif seeing.dim() == 1:
        assert ((seeing >= 1) & (seeing <= config.max_sources)).all()
    else:
        assert seeing.isfinite().all()


@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize("name", PER_CODE)
def test_what_is_found_does_not_depend_on_chunks(name, is_shared, monkeypatch):
    scenes = drawn(UNIT, 12, is_shared=is_shared)

    together_BK3 = PER_CODE[name](scenes, UNIT)
    monkeypatch.setattr(pseudospectra, "_CHUNK_BYTES", 1)
    alone_BK3 = PER_CODE[name](scenes, UNIT)

    # Another chunk is another order of float32 sums; near a flat peak in range this moves the
    # refined point by a last step of 1/100 grid step, 1e-2 in 1/r. All but a few agree to that.
    near = (together_BK3 - alone_BK3).abs().amax(-1)[scenes.source_mask_BK] < 2e-2
    assert near.float().mean() > 0.8


def test_spectra_are_their_formulas(monkeypatch):
    config = replace(UNIT, snapshots=2)
    scenes = drawn(config, 3, is_shared=False)
    steering_BNX = torch.randn(3, config.elements, 5, dtype=torch.complex64, generator=seeded(3))
    scores = []

    def spy(score, mask_BK, config):
        scores.append(score(steering_BNX))
        return find_peaks(score, mask_BK, config)

    monkeypatch.setattr(pseudospectra, "find_peaks", spy)
    for estimator in PER_CODE.values():
        estimator(scenes, config)

    wanted = [torch.empty(3, 5) for _ in PER_CODE]
    for b in range(3):
        for x in range(5):
            b_LM = scenes.installation.sensing_BLMN[b] @ steering_BNX[b, :, x]
            bartlett, mvdr, music = [], [], []
            for heard_M, S_MM in zip(b_LM, scenes.sample_BLMM[b], strict=True):
                square = heard_M.abs().square().sum()
                loaded_MM = S_MM + 0.1 / config.antennas * torch.eye(config.antennas)
                U_MD = torch.linalg.eigh(S_MM)[1][:, -scenes.source_mask_BK[b].sum() :]
                bartlett.append((heard_M.conj() @ S_MM @ heard_M).real / square)
                mvdr.append(
                    -(heard_M.conj() @ torch.linalg.solve(loaded_MM, heard_M)).real / square
                )
                music.append((U_MD.mH @ heard_M).abs().square().sum() / square)
            wanted[0][b, x] = sum(bartlett) / len(bartlett)
            wanted[1][b, x] = sum(mvdr) / len(mvdr)
            wanted[2][b, x] = sum(music) / len(music)
    # δ(S + δI)⁻¹ = I − Σ: the score leaves the constant 1/δ away.
    wanted[1] *= 0.1 / config.antennas
    for found_BX, expected_BX in zip(scores, wanted, strict=True):
        # Float32 eigenvectors of two or four antennas whose eigenvalues do not meet.
        torch.testing.assert_close(found_BX, expected_BX, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PER_CODE)
def test_a_single_source_without_noise_is_found(name):
    config = replace(TINY, max_sources=1)
    scenes = drawn(config, 40, snr_db=80.0)

    positions_BK3 = PER_CODE[name](blinded(scenes), config)

    # A last step of 1/100 grid step is 1e-3 rad; a star search may stop short of it along the
    # diagonal valley of angle and range. ε ~ (phase error)²: 1e-3 leaves 0.03 rad rms.
    assert position_subspace_error(positions_BK3, scenes, config).median() < 1e-3
    assert position_error_m(positions_BK3, scenes).median() < 0.02


def test_a_factor_of_fewer_directions_than_sources_still_shows_those_it_has():
    scenes = drawn(TINY, 1500, seed=5)
    two = scenes.select(scenes.source_mask_BK.all(-1))
    shape = (len(two), 1, TINY.rank)
    mixed_B1R = torch.randn(shape, dtype=torch.complex64, generator=seeded(4))
    factor_BNR = two.steering_BNK[..., :1] @ mixed_B1R

    found_BK3 = music_of_factor(factor_BNR, two.source_mask_BK, TINY)

    # Rounding makes a second direction of 1e-7 of the first one's power; raised to a unit vector it
    # shifts or outshines it: six errors above 0.05 of these 765, the largest 0.999.
    first = replace(
        two,
        positions_BK3=two.positions_BK3[:, :1],
        source_mask_BK=two.source_mask_BK[:, :1],
        steering_BNK=two.steering_BNK[..., :1],
    )
    # Stopping short in the valley of angle and range leaves 0.007.
    assert position_subspace_error(found_BK3[:, :1], first, TINY).max() < 0.02


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_music_of_a_covariance_is_blind_to_its_scale(scale):
    scenes = drawn(UNIT, 20)
    R_BNN = ridge(scenes)

    plain_BK3 = music_of_covariance(R_BNN, scenes.source_mask_BK, UNIT)
    scaled_BK3 = music_of_covariance(scale * R_BNN, scenes.source_mask_BK, UNIT)

    # As for chunks.
    near = (plain_BK3 - scaled_BK3).abs().amax(-1)[scenes.source_mask_BK] < 2e-2
    assert near.float().mean() > 0.8


def test_music_gains_from_snapshots_as_a_subspace_method_must():
    errors = []
    for snapshots in (1, 8):
        config = replace(TINY, snapshots=snapshots)
        scenes = drawn(config, 100)
        found_BK3 = music_per_code(blinded(scenes), config)
        errors.append(position_subspace_error(found_BK3, scenes, config).mean())

    # .22 and .05 over 1,000 scenes; a standard error over 100 is 0.02.
    assert errors[1] < 0.5 * errors[0]
