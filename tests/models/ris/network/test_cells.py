"""Cells of a slot: they divide the region among them."""

from __future__ import annotations

import pytest
import torch

from models.ris.estimators.posterior import position_grid
from models.ris.network.cells import grid_cells, zoomed_cells
from models.ris.scene.scenes import SIZES

TINY = SIZES["tiny"]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
@pytest.mark.parametrize("place", ["inside", "corner"])
def test_the_cells_of_a_zoom_and_what_is_left_of_the_grid_fill_the_region(share, place):
    grid = position_grid(TINY)
    unit_B3 = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    if place == "corner":
        unit_B3 = unit_B3.round()
    centre_B3 = grid.low_3 + (grid.high_3 - grid.low_3) * unit_B3

    cells = zoomed_cells(grid, centre_B3, (share * grid.cell_3).expand(50, -1))

    count = len(grid.positions_G3)
    assert cells.near_BZ3.shape == (50, 27, 3)
    assert ((cells.near_BZ3 >= grid.low_3) & (cells.near_BZ3 <= grid.high_3)).all()
    total_B = cells.log_volume_BC.exp().sum(-1)
    # Sums of 150 volumes of one in fp32.
    torch.testing.assert_close(total_B, torch.full_like(total_B, count), rtol=1e-4, atol=0)


def test_positions_of_cells_are_the_grids_and_then_the_zooms():
    grid = position_grid(TINY)
    count, centre_B3 = len(grid.positions_G3), grid.positions_G3[:2]
    cells = zoomed_cells(grid, centre_B3, (grid.cell_3 / 10).expand(2, -1))

    found_BX3 = cells.positions(grid.positions_G3, torch.tensor([[3, count + 13], [0, count]]))

    torch.testing.assert_close(found_BX3[0, 0], grid.positions_G3[3])
    # The fourteenth of 27 cells is the middle one; the first is a cell before it on every axis.
    torch.testing.assert_close(found_BX3[0, 1], centre_B3[0])
    torch.testing.assert_close(
        found_BX3[1, 1], (centre_B3[1] - grid.cell_3 / 10).clamp(min=grid.low_3)
    )


def test_without_a_zoom_every_cell_has_volume_one():
    grid = position_grid(TINY)

    cells = grid_cells(grid.positions_G3, batch=3)

    assert cells.near_BZ3.shape == (3, 0, 3)
    assert torch.equal(cells.log_volume_BC, torch.zeros(3, len(grid.positions_G3)))
