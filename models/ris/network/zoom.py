"""Candidates of the grid and of a zoom together: where each is, and what must not count twice.

Shapes: B scenes; G cells of the grid; C candidates of the zoom (or of both, in a gain: the grid
comes first); 3 = a position as in `estimators.posterior`.
"""

from math import sqrt

import torch
from torch import Tensor

# A candidate that must not count gets this gain, in nats.
_NOTHING = -1e4
# A zoom reaches at least this far, in cells of the grid: the accuracy of a position at 24 dB.
_LEAST_REACH = 0.01


def zoom(
    best_B3: Tensor, step_B3: Tensor, deviation_B3: Tensor, cell_3: Tensor, offsets_C3: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions around the end of a step, BC3, and their spacing, B3.

    The spacing is √3 standard deviations. Weighted by the likelihood, the positions then have its
    mean and about its spread, as in a Gauss–Hermite rule. It is at most half a cell of the grid,
    whose own points serve better beyond that.
    """
    largest_3 = cell_3 / 2
    # A step ends at the cell's edge, and a position without a finite step stays.
    step_B3 = torch.maximum(torch.minimum(step_B3, largest_3), -largest_3).nan_to_num(nan=0.0)
    reach_B3 = sqrt(3) * deviation_B3.nan_to_num(nan=torch.inf)
    reach_B3 = torch.maximum(torch.minimum(reach_B3, largest_3), _LEAST_REACH * cell_3)
    return (best_B3 + step_B3).unsqueeze(1) + reach_B3.unsqueeze(1) * offsets_C3, reach_B3


def place_of(index_B: Tensor, grid_1G3: Tensor, near_BC3: Tensor) -> Tensor:
    """Positions of candidates by their index, (B, 3)."""
    cells = grid_1G3.shape[1]
    grid_B3 = grid_1G3[0][index_B.clamp(max=cells - 1)]
    if not near_BC3.shape[1]:
        return grid_B3
    index_B13 = (index_B - cells).clamp(min=0)[:, None, None].expand(-1, -1, 3)
    near_B3 = near_BC3.gather(1, index_B13).squeeze(1)
    return torch.where((index_B < cells).unsqueeze(-1), grid_B3, near_B3)


def count_once(gain_BC: Tensor, grid_1G3: Tensor, near_BC3: Tensor, reach_B3: Tensor) -> None:
    """Drop, in place, the gains of the grid's cells that the zoom covers.

    The zoom covers a box of 3 reaches a side around its middle candidate.
    """
    cells = grid_1G3.shape[1]
    centre_B3 = near_BC3[:, near_BC3.shape[1] // 2]
    is_twice_BG = torch.ones_like(gain_BC[:, :cells], dtype=torch.bool)
    # Axis by axis: rows of three numbers would leave a processor's vectors empty.
    for axis in range(3):
        distance_BG = (grid_1G3[..., axis] - centre_B3[:, axis : axis + 1]).abs_()
        is_twice_BG &= distance_BG < 1.5 * reach_B3[:, axis : axis + 1]
    gain_BC[:, :cells].masked_fill_(is_twice_BG, _NOTHING)
