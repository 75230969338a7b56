"""The physics inside the network against the textbook's formulas."""

from dataclasses import replace
from math import log, sqrt

import pytest
import torch
from torch import Tensor

from models.linalg.entries import pack_entries
from models.linalg.gram import nystrom_factor
from models.linalg.hermitian import pack_hermitian, unpack_hermitian
from models.ris.estimators.posterior import (
    Responses,
    add_noise,
    candidate_steering,
    entries_of,
    fit_noise,
    position_grid,
    source_gain,
    weighted_factor,
)
from models.ris.estimators.responses import (
    NearResponses,
    candidate_parts,
    near_responses,
    sensing_parts,
    steering_of,
)
from models.ris.network.source_climb import climb_source
from models.ris.scene.geometry import as_positions
from models.ris.scene.scenes import (
    SIZES,
    draw_installation,
    draw_scenes,
    element_positions,
    steering,
    stream_generator,
)

TINY = SIZES["tiny"]
GRID = position_grid(TINY)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex64, generator=generator)


def scenes_and_responses(count: int = 6):
    wall = draw_installation(TINY, stream_generator(0, "installation"))
    scenes = draw_scenes(TINY, count, stream_generator(0, "train", trial_seed=0), installation=wall)
    steering_1NG = candidate_steering(GRID.positions_G3, TINY).unsqueeze(0)
    return scenes, Responses(steering_1NG, wall.sensing_BLMN), steering_1NG


def log_likelihood(sample_BLMM: Tensor, covariance_BLMM: Tensor) -> Tensor:
    """−Σ_l [logdet R_l + tr(R_l⁻¹ S_l)] in float64, without the constant."""
    sample, covariance = sample_BLMM.to(torch.complex128), covariance_BLMM.to(torch.complex128)
    fit_BL = torch.linalg.solve(covariance, sample).diagonal(dim1=-2, dim2=-1).real.sum(-1)
    return -(torch.linalg.slogdet(covariance)[1] + fit_BL).sum(-1)


@pytest.mark.parametrize("size", list(SIZES))
def test_the_grid_fills_the_region_of_the_prior(size):
    config = SIZES[size]

    grid = position_grid(config)

    low_3 = grid.positions_G3.amin(0) - grid.cell_3 / 2
    high_3 = grid.positions_G3.amax(0) + grid.cell_3 / 2
    torch.testing.assert_close(low_3, grid.low_3)
    torch.testing.assert_close(high_3, grid.high_3)
    assert (grid.cell_3[:2] < 1.5 / config.side).all()
    scenes = draw_scenes(config, 50, stream_generator(0, "train", trial_seed=0))
    at_X3 = scenes.positions_BK3[scenes.source_mask_BK]
    at_X3[:, 2] = at_X3[:, 2].reciprocal()
    # 1e-6: a reciprocal and back in float32.
    assert ((at_X3 >= grid.low_3 - 1e-6) & (at_X3 <= grid.high_3 + 1e-6)).all()


def test_candidates_have_the_steering_vectors_of_scenes():
    scenes, _, _ = scenes_and_responses()
    present_BK3 = scenes.positions_BK3.nan_to_num(nan=1.0)
    present_BK3[..., 2] = present_BK3[..., 2].reciprocal()

    steering_BNK = candidate_steering(present_BK3, TINY) * scenes.source_mask_BK.unsqueeze(-2)

    # A range rounded twice shifts a phase of under 30 rad by 2e-7 of itself.
    torch.testing.assert_close(steering_BNK, scenes.steering_BNK, rtol=0, atol=2e-5)


@pytest.mark.parametrize("m", [1, 2, 5])
def test_packed_matrices_come_back_and_their_dot_product_is_the_trace(m):
    a, b = (x + x.mH for x in (normal(3, m, m, seed=1), normal(3, m, m, seed=2)))

    torch.testing.assert_close(unpack_hermitian(pack_hermitian(a), m), a)
    dot = (pack_hermitian(a) * pack_hermitian(b)).sum(-1)
    torch.testing.assert_close(dot, (a @ b).diagonal(dim1=-2, dim2=-1).real.sum(-1))


def test_the_table_of_one_wall_gives_what_a_wall_a_scene_gives():
    scenes, shared, steering_1NG = scenes_and_responses()
    own = Responses(steering_1NG, scenes.installation.sensing_BLMN.expand(6, -1, -1, -1))
    power_BC = torch.rand(6, steering_1NG.shape[-1])

    assert shared.table_LXC is not None
    assert own.table_LXC is None
    covariance_BLMM = own.covariance(power_BC)
    torch.testing.assert_close(shared.covariance(power_BC), covariance_BLMM)
    form_XLB = pack_entries(entries_of(covariance_BLMM))
    torch.testing.assert_close(
        shared.quadratic(form_XLB), own.quadratic(form_XLB), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("is_shared", [True, False])
def test_candidates_of_each_scenes_own_have_the_responses_of_their_steering(is_shared):
    generator = torch.Generator().manual_seed(2)
    wall = draw_installation(TINY, generator, batch=1 if is_shared else 4)
    positions_BC3 = GRID.low_3 + (GRID.high_3 - GRID.low_3) * torch.rand(4, 5, 3)
    parts_YBC = candidate_parts(positions_BC3, TINY)
    sensing_BLMN = wall.sensing_BLMN
    power_BC = torch.rand(4, 5)

    near = near_responses(parts_YBC, sensing_BLMN, sensing_parts(sensing_BLMN))

    assert isinstance(near, NearResponses)
    steering_BNC = candidate_steering(positions_BC3, TINY)
    torch.testing.assert_close(steering_of(parts_YBC), steering_BNC)
    expected = Responses(steering_BNC, sensing_BLMN)
    packed_XLB = expected.packed_covariance(power_BC)
    torch.testing.assert_close(near.packed_covariance(power_BC), packed_XLB, rtol=1e-4, atol=1e-4)
    for found_LBC, expected_LBC in zip(
        near.quadratics(packed_XLB, -packed_XLB),
        expected.quadratics(packed_XLB, -packed_XLB),
        strict=True,
    ):
        # Sums of 16 products of up to some 1,000 in float32.
        torch.testing.assert_close(found_LBC, expected_LBC, rtol=1e-4, atol=1e-2)


def test_the_gain_is_the_difference_of_two_log_likelihoods():
    scenes, responses, steering_1NG = scenes_and_responses()
    power_BC = 1e-3 * torch.rand(6, steering_1NG.shape[-1])
    rest_BLMM = add_noise(responses.covariance(power_BC), torch.full((6,), log(0.02)))

    gain_BC, added_BC = source_gain(
        scenes.sample_BLMM, rest_BLMM.inverse(), [responses], snapshots=1
    )

    assert (added_BC >= 0.2 / 4).all()
    assert (added_BC <= 1 / 4).all()
    for c in (0, 17, 40):
        d_LM1 = responses.response_BLMC[0, :, :, c : c + 1]
        more_BLMM = rest_BLMM + added_BC[:, c, None, None, None] * (d_LM1 @ d_LM1.mH)
        before_B, after_B = (log_likelihood(scenes.sample_BLMM, r) for r in (rest_BLMM, more_BLMM))
        # Sums of 16 terms of up to 100 nats in float32, with condition numbers up to 100.
        torch.testing.assert_close(gain_BC[:, c].double(), after_B - before_B, rtol=1e-3, atol=1e-2)


def test_a_source_of_the_model_has_its_power_and_the_best_gain_where_it_is():
    _, responses, _ = scenes_and_responses(1)
    noise_B = torch.tensor([log(0.02)])
    power_BC = torch.zeros(1, responses.response_BLMC.shape[-1])
    power_BC[0, 33] = 0.15
    nothing_BLMM = add_noise(torch.zeros(1, 16, 4, 4, dtype=torch.complex64), noise_B)
    # The expected sample covariance: what many snapshots would give.
    sample_BLMM = nothing_BLMM + responses.covariance(power_BC)

    gain_BC, added_BC = source_gain(sample_BLMM, nothing_BLMM.inverse(), [responses], snapshots=1)

    assert gain_BC.argmax() == 33
    assert added_BC[0, 33] == pytest.approx(0.15, rel=1e-3)


@pytest.mark.parametrize("is_shared", [True, False])
def test_one_more_source_climbs_by_the_likelihoods_gradient_and_information(is_shared):
    config = replace(TINY, snapshots=2)
    generator = torch.Generator().manual_seed(4)
    wall = draw_installation(config, generator, batch=1 if is_shared else 6)
    scenes = draw_scenes(config, 6, generator, installation=wall)
    sensing_BLMN = wall.sensing_BLMN
    _, responses, _ = scenes_and_responses()
    power_BC = 1e-3 * torch.rand(6, responses.response_BLMC.shape[-1], generator=generator)
    rest_BLMM = add_noise(responses.covariance(power_BC), torch.full((6,), log(0.02)))
    # Around where sources are, and where not.
    place_B3 = as_positions(scenes.positions_BK3[:, 0])
    place_B3[3:, :2] += 0.1

    step_B3, deviation_B3 = climb_source(
        scenes.sample_BLMM, rest_BLMM.inverse(), place_B3, sensing_BLMN, config
    )

    own = Responses(candidate_steering(place_B3.unsqueeze(1), config), sensing_BLMN)
    _, power_B1 = source_gain(scenes.sample_BLMM, rest_BLMM.inverse(), [own], snapshots=2)
    at_B3 = place_B3.double().requires_grad_()
    elements_N3 = element_positions(config).double()

    def heard(place_B3):
        position_B13 = as_positions(place_B3).unsqueeze(1)
        a_BN1 = steering(position_B13, elements_N3, wavelength_m=config.wavelength_m)
        return sensing_BLMN.to(torch.complex128) @ a_BN1.unsqueeze(1)

    def covariance(place_B3):
        d_BLM1 = heard(place_B3)
        return rest_BLMM.to(torch.complex128) + power_B1[..., None, None] * (d_BLM1 @ d_BLM1.mH)

    likelihood_B = log_likelihood(scenes.sample_BLMM, covariance(at_B3))
    (slope_B3,) = torch.autograd.grad(likelihood_B.sum(), at_B3)
    h = 1e-5
    changes = [
        (covariance(at_B3.detach() + shift_3) - covariance(at_B3.detach() - shift_3)) / (2 * h)
        for shift_3 in h * torch.eye(3, dtype=torch.float64)
    ]
    turned = [torch.linalg.solve(covariance(at_B3.detach()), change) for change in changes]
    J_33B = torch.stack(
        [torch.stack([(x * y.mT).sum((1, 2, 3)).real for x in turned]) for y in turned]
    )
    J_B33 = J_33B.permute(2, 0, 1)
    expected_B3 = torch.linalg.solve(J_B33, slope_B3)
    # Deviations of a single snapshot a code are the unit of a step; float32, with conditions of
    # some 100 in R and 1000 in J.
    unit_B3 = torch.linalg.inv(J_B33).diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((step_B3 - expected_B3) / unit_B3).abs().max() < 5e-3 * (
        1 + (expected_B3 / unit_B3).abs().max()
    )
    torch.testing.assert_close(deviation_B3.double(), unit_B3 / sqrt(2), rtol=2e-3, atol=0)


def test_the_noise_stands_still_where_the_model_is_true_and_moves_towards_it_elsewhere():
    _, responses, _ = scenes_and_responses(1)
    truth_B = torch.tensor([log(0.02)])
    sources_BLMM = responses.covariance(0.002 * torch.rand(1, responses.response_BLMC.shape[-1]))
    sample_BLMM = add_noise(sources_BLMM, truth_B)

    torch.testing.assert_close(fit_noise(sample_BLMM, sources_BLMM, truth_B), truth_B)
    for start in (0.01, 0.04):
        start_B = torch.tensor([log(start)])
        moved_B = fit_noise(sample_BLMM, sources_BLMM, start_B)
        assert (moved_B - truth_B).abs() < (start_B - truth_B).abs()


def test_the_factor_of_a_low_rank_matrix_is_exact():
    columns_BNK = normal(4, 20, 3)
    R_BNN = columns_BNK @ columns_BNK.mH

    factor_BNR = nystrom_factor(lambda x: R_BNN @ x, normal(4, 20, 3, seed=1), load=1e-6)

    # The load takes 1e-6 of the trace, 60, from each direction.
    torch.testing.assert_close(factor_BNR @ factor_BNR.mH, R_BNN, rtol=0, atol=1e-3)


def test_the_factor_of_weights_has_the_dominant_directions_and_a_finite_gradient():
    steering_1NG = candidate_steering(GRID.positions_G3, TINY).unsqueeze(0)
    weights_BG = torch.full((2, steering_1NG.shape[-1]), 1e-4)
    weights_BG[0, 3], weights_BG[0, 60], weights_BG[1, 20] = 0.6, 0.4, 1.0
    weights_BG.requires_grad_()
    start_BNR = normal(2, 36, 3)

    factor_BNR = weighted_factor([(steering_1NG, weights_BG)], start_BNR)
    factor_BNR.abs().square().sum().backward()

    for b, cells in ((0, [3, 60]), (1, [20])):
        basis_NK = torch.linalg.qr(steering_1NG[0][:, cells])[0]
        found_NK = torch.linalg.svd(factor_BNR[b])[0][:, : len(cells)]
        missed = 1 - (basis_NK.mH @ found_NK).abs().square().sum() / len(cells)
        # The floor of 78 cells at 1e-4 tilts the dominant vectors by its share, squared.
        assert missed < 1e-3
    assert weights_BG.grad is not None
    assert weights_BG.grad.isfinite().all()
    assert sqrt(float(weights_BG.grad.square().mean())) > 0
