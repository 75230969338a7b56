"""Positions of a zoom: a rule that keeps the moments of a likelihood, within the grid's cells."""

import math

import pytest
import torch

from models.ris.network.zoom import count_once, zoom, zoom_rule


def test_the_positions_have_mass_mean_and_covariance_of_a_gaussian():
    offsets_C3, log_volume_C, _ = zoom_rule()

    weight_C = (log_volume_C - offsets_C3.square().sum(-1) / 2).double().exp()
    mean_3 = weight_C @ offsets_C3.double()
    moments_33 = offsets_C3.double().mT @ (weight_C[:, None] * offsets_C3.double())

    # Sums of nine numbers in fp32.
    mass, close = (2 * math.pi) ** 1.5, {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(weight_C.sum(), torch.tensor(mass).double(), **close)
    torch.testing.assert_close(mean_3, torch.zeros(3).double(), **close)
    torch.testing.assert_close(moments_33, mass * torch.eye(3).double(), **close)


@pytest.mark.parametrize("points", [9, 27])
def test_the_box_of_a_zoom_has_the_volume_of_its_positions_and_holds_them(points):
    offsets_C3, log_volume_C, half = zoom_rule(points)

    assert math.isclose((2 * half) ** 3, float(log_volume_C.exp().sum()), rel_tol=1e-5)
    assert float(offsets_C3.abs().max()) < half


def test_a_rule_of_other_numbers_is_refused():
    with pytest.raises(ValueError, match="use 9 or 27"):
        zoom_rule(8)


def test_a_zoom_without_information_covers_about_a_cell_of_the_grid():
    offsets_C3, _, half = zoom_rule()
    cell_3, best_B3 = torch.tensor([0.1, 0.2, 0.5]), torch.zeros(2, 3)
    nothing_B3 = torch.full((2, 3), torch.nan)

    near_BC3, spread_B3 = zoom(best_B3, nothing_B3, nothing_B3, cell_3, offsets_C3)

    torch.testing.assert_close(near_BC3[:, 0], best_B3)
    # Half a cell is √3 spreads, and the box is 4.3 spreads wide.
    torch.testing.assert_close(2 * half * spread_B3, 1.25 * cell_3.expand(2, 3), rtol=0.01, atol=0)


def test_cells_within_the_box_do_not_count_twice():
    grid_1G3 = torch.tensor([[[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 2.0]]])
    gain_BC = torch.zeros(1, 4)

    count_once(gain_BC, grid_1G3, torch.zeros(1, 3), torch.tensor([[0.4, 1.0, 1.0]]))

    assert (gain_BC < -1e3).tolist() == [[True, False, False, False]]
