"""The likelihood of hypotheses against dense matrices, an integral over the scale, and the bank.

Shapes: P hypotheses, K sources, L codes, M antennas, T snapshots a code, X unit coordinates.
"""

from dataclasses import replace
from math import exp

import pytest
import torch
from scipy.integrate import quad

from models.ris.limit.bank import Bank
from models.ris.limit.hypotheses import Measured, coordinates, corners
from models.ris.limit.likelihood import Sight, log_likelihood
from models.ris.scene.scenes import MAX_CORRELATION, SIZES, draw_scenes

UNIT = SIZES["unit"]
L, M = 5, 4


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random(*shape, generator):
    return torch.randn(*shape, dtype=torch.complex128, generator=generator)


def random_case(count, snapshots, hypotheses, seed=0):
    """Strengths, sights, R/σ² of shape (P, L, M, M), and snapshots of unit energy."""
    generator = seeded(seed)
    snapshots_LMT = random(L, M, snapshots, generator=generator)
    snapshots_LMT /= snapshots_LMT.abs().square().sum().sqrt()
    strength_KP = torch.rand(count, hypotheses, dtype=torch.float64, generator=generator) * 5
    seen_KLMP = random(count, L, M, hypotheses, generator=generator)
    sights = [
        Sight(
            steering_NP=seen_LMP[0],
            seen_LMP=seen_LMP,
            matched_LTP=(snapshots_LMT.conj().unsqueeze(-1) * seen_LMP.unsqueeze(2)).sum(1),
            norm_LP=seen_LMP.abs().square().sum(1),
        )
        for seen_LMP in seen_KLMP
    ]
    scaled_PLMK = (seen_KLMP * strength_KP.sqrt()[:, None, None]).permute(3, 1, 2, 0)
    R_PLMM = scaled_PLMK @ scaled_PLMK.mH + torch.eye(M)
    return strength_KP, sights, R_PLMM, snapshots_LMT


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("snapshots", [1, 3])
def test_the_likelihood_is_that_of_dense_matrices_for_any_number_of_sources(count, snapshots):
    strength_KP, sights, R_PLMM, snapshots_LMT = random_case(count, snapshots, 20)

    found_P = log_likelihood(strength_KP, sights)

    logdet_P = torch.linalg.slogdet(R_PLMM).logabsdet.sum(-1)
    misfit_P = (
        (snapshots_LMT.conj() * torch.linalg.solve(R_PLMM, snapshots_LMT)).sum((1, 2, 3)).real
    )
    dense_P = -snapshots * logdet_P - L * M * snapshots * misfit_P.log()
    # float64 with matrices of condition 1e3 at most.
    torch.testing.assert_close(found_P, dense_P, rtol=1e-10, atol=1e-9)


def test_the_likelihood_is_the_integral_over_all_scales_of_the_snapshots():
    strength_KP, sights, R_PLMM, snapshots_LMT = random_case(2, 1, 6, seed=1)
    noise_P = torch.tensor([0.3, 1.0, 2.0, 5.0, 0.1, 1.0])  # σ² cancels: any may be assumed

    found_P = log_likelihood(strength_KP, sights)

    logs = []
    for R_LMM in R_PLMM * noise_P[:, None, None, None]:
        logdet = float(torch.linalg.slogdet(R_LMM).logabsdet.sum())
        misfit = float((snapshots_LMT.conj() * torch.linalg.solve(R_LMM, snapshots_LMT)).sum().real)
        n = L * M

        def density(log_g, logdet=logdet, misfit=misfit, n=n):
            # The constant 60 keeps the integrand in range; it is the same for all hypotheses.
            return exp(-logdet - n * log_g - misfit * exp(-log_g) - 60)

        peak = torch.tensor(misfit / n).log().item()
        logs.append(torch.tensor(quad(density, peak - 3, peak + 12)[0]).log().item())
    found_P = found_P - found_P[0]
    expected_P = torch.tensor(logs, dtype=torch.float64)
    # The cut at e⁻³ below the peak leaves out exp(−n(e³ − 4)), at e¹² above e⁻²⁴⁰⁺.
    torch.testing.assert_close(found_P, expected_P - expected_P[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_bank_and_the_hypotheses_have_the_same_likelihood(count):
    config = replace(UNIT, max_sources=3)
    drawn = draw_scenes(config, 40, seeded(2))
    scene = drawn.select((drawn.source_mask_BK.sum(-1) == count).nonzero()[:1].squeeze(-1))
    bank = Bank(scene, config, draws=300, generator=seeded(3))

    found_P = Measured(scene, config).hypotheses(bank.unit_XJ).log_likelihood_P

    # Both lose float32 digits to the part that sources explain, 20 dB above the rest: 32 nats
    # times 2⁻²⁴ times 100 times some tens of summands.
    torch.testing.assert_close(found_P, bank.log_likelihood(scene)[0], rtol=1e-4, atol=2e-2)


def test_the_scale_of_the_snapshots_and_the_truth_have_no_effect():
    scenes = draw_scenes(UNIT, 4, seeded(4))
    louder = replace(scenes.blinded(), snapshots_BLMT=8 * scenes.snapshots_BLMT)

    for row in range(4):
        one, other = (Measured(some.select(slice(row, row + 1)), UNIT) for some in (scenes, louder))
        unit_XP = torch.rand(one.coordinates, 50, generator=seeded(row))
        both = [some.hypotheses(unit_XP).log_likelihood_P for some in (one, other)]
        # A power of two changes no digit.
        assert torch.equal(*both)


def test_the_true_sources_are_likelier_than_others():
    scenes = draw_scenes(UNIT, 100, seeded(5))
    single = scenes.select(scenes.source_mask_BK.sum(-1) == 1)
    low, high = corners(UNIT)
    gains = []

    for row in range(len(single)):
        scene = single.select(slice(row, row + 1))
        place_3 = scene.positions_BK3[0, 0].clone()
        place_3[2] = 1 / place_3[2]
        snr = (scene.snr_db_B - UNIT.snr_min_db) / (UNIT.snr_max_db - UNIT.snr_min_db)
        truth_XP = torch.cat(((place_3 - low) / (high - low), snr)).unsqueeze(1)
        other_XP = torch.rand(4, 200, generator=seeded(row))
        found = Measured(scene, UNIT).hypotheses(torch.cat((truth_XP, other_XP), 1))
        is_less_P = found.log_likelihood_P[1:] < found.log_likelihood_P[0]
        gains.append(float(is_less_P.double().mean()))

    # A draw of the prior is rarely as likely as the truth; a wrong layout of coordinates gives 1/2.
    assert sum(gains) / len(gains) > 0.9


def test_layouts_that_the_scenes_reject_are_impossible():
    drawn = draw_scenes(UNIT, 20, seeded(6))
    scene = drawn.select((drawn.source_mask_BK.sum(-1) == 2).nonzero()[:1].squeeze(-1))
    unit_XP = torch.rand(coordinates(2), 200, generator=seeded(7))
    unit_XP[3:6] = unit_XP[:3] + 0.4 * (torch.rand(3, 200, generator=seeded(8)) - 0.5)

    found = Measured(scene, UNIT).hypotheses(unit_XP)

    one, other = (sight.steering_NP for sight in found.sights_K)
    correlation_P = (one.conj() * other).sum(0).abs() / UNIT.elements
    is_close_P = correlation_P > MAX_CORRELATION
    assert 20 < int(is_close_P.sum()) < 180
    assert torch.equal(found.log_likelihood_P.isinf(), is_close_P)


def test_a_moved_source_leaves_the_same_as_hypotheses_made_anew():
    config = replace(UNIT, max_sources=3)
    drawn = draw_scenes(config, 20, seeded(9))
    scene = drawn.select((drawn.source_mask_BK.sum(-1) == 3).nonzero()[:1].squeeze(-1))
    measured = Measured(scene, config)
    old_XP, unit_XP = torch.rand(2, measured.coordinates, 30, generator=seeded(10))
    new_XP = old_XP.clone()
    new_XP[3:6], new_XP[9:] = unit_XP[3:6], unit_XP[9:]

    moved = measured.moved(measured.hypotheses(old_XP), new_XP, [1])

    anew = measured.hypotheses(new_XP)
    torch.testing.assert_close(moved.log_likelihood_P, anew.log_likelihood_P, rtol=1e-5, atol=1e-3)
