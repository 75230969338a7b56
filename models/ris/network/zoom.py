"""Candidates of the grid and of a zoom together: where each is, and what must not count twice.

Shapes: B scenes; G cells of the grid; C candidates of the zoom (or of both, in a gain: the grid
comes first); 3 = a position as in `estimators.posterior`.
"""

from math import exp, log, pi, sqrt

import torch
from torch import Tensor

# A candidate that must not count gets this gain, in nats.
_NOTHING = -1e4
# Limits of a zoom's spread, in cells of the grid. Beyond the largest the grid's own points serve
# better; the least is the accuracy of a position at 24 dB.
_MOST_SPREAD, _LEAST_SPREAD = 0.5 / sqrt(3), 0.01 / sqrt(3)
# Corners of the rule lie this many variances away on each axis; at 1 and below there is no centre.
# J is equal within .02 dB up to 1.5, and to that of a rule of 3×3×3 positions.
_CORNER = 1.2


def zoom_rule(points: int = 9) -> tuple[Tensor, Tensor, float]:
    """Positions of a zoom around its middle, their volumes, and how far it reaches.

    With 9 they are the middle and eight corners, ±√a on each axis, a = `_CORNER`. Weighted by these
    volumes and a Gaussian likelihood, they have the Gaussian's mass, mean and covariance:

        v₀ = (2π)^(3/2) (1 − 1/a),  v₁ = (2π)^(3/2) e^(3a/2) / (8a)

    With 27 they are a cube of 3×3×3 equal cells, √3 wide, as weights of earlier versions have them.

    Returns:
        offsets_C3 in spreads, the middle first; the log of the volumes in spreads, of shape C; and
        half the edge, in spreads, of a cube of their total volume.

    Raises:
        ValueError: There is no rule of so many positions.
    """
    if points == 27:
        cube_C3 = sqrt(3) * torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
        offsets_C3 = torch.cat((cube_C3[13:14], cube_C3[:13], cube_C3[14:]))
        return offsets_C3, torch.full((27,), 1.5 * log(3)), 1.5 * sqrt(3)
    if points != 9:
        raise ValueError(f"a zoom of {points} positions; use 9 or 27")
    side_2 = torch.tensor([-1.0, 1.0]) * sqrt(_CORNER)
    offsets_C3 = torch.cat((torch.zeros(1, 3), torch.cartesian_prod(side_2, side_2, side_2)))
    mass = (2 * pi) ** 1.5
    middle, corner = mass * (1 - 1 / _CORNER), mass * exp(1.5 * _CORNER) / (8 * _CORNER)
    log_volume_C = torch.tensor([log(middle)] + 8 * [log(corner)])
    return offsets_C3, log_volume_C, (middle + 8 * corner) ** (1 / 3) / 2


def zoom(
    best_B3: Tensor, step_B3: Tensor, deviation_B3: Tensor, cell_3: Tensor, offsets_C3: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions around the end of a step, BC3, and the zoom's spread, B3.

    The spread is the standard deviation of the position within limits.
    """
    largest_3 = cell_3 / 2
    # A step ends at the cell's edge, and a position without a finite step stays.
    step_B3 = torch.maximum(torch.minimum(step_B3, largest_3), -largest_3).nan_to_num(nan=0.0)
    spread_B3 = torch.minimum(deviation_B3.nan_to_num(nan=torch.inf), _MOST_SPREAD * cell_3)
    spread_B3 = torch.maximum(spread_B3, _LEAST_SPREAD * cell_3)
    return (best_B3 + step_B3).unsqueeze(1) + spread_B3.unsqueeze(1) * offsets_C3, spread_B3


def place_of(index_B: Tensor, grid_1G3: Tensor, near_BC3: Tensor) -> Tensor:
    """Positions of candidates by their index, (B, 3)."""
    cells = grid_1G3.shape[1]
    grid_B3 = grid_1G3[0][index_B.clamp(max=cells - 1)]
    if not near_BC3.shape[1]:
        return grid_B3
    index_B13 = (index_B - cells).clamp(min=0)[:, None, None].expand(-1, -1, 3)
    near_B3 = near_BC3.gather(1, index_B13).squeeze(1)
    return torch.where((index_B < cells).unsqueeze(-1), grid_B3, near_B3)


def count_once(gain_BC: Tensor, grid_1G3: Tensor, middle_B3: Tensor, half_B3: Tensor) -> None:
    """Drop, in place, the gains of the grid's cells that the zoom covers.

    The zoom covers a box around its middle; half_B3 is half of its edges.
    """
    cells = grid_1G3.shape[1]
    is_twice_BG = torch.ones_like(gain_BC[:, :cells], dtype=torch.bool)
    # Axis by axis: rows of three numbers would leave a processor's vectors empty.
    for axis in range(3):
        distance_BG = (grid_1G3[..., axis] - middle_B3[:, axis : axis + 1]).abs_()
        is_twice_BG &= distance_BG < half_B3[:, axis : axis + 1]
    gain_BC[:, :cells].masked_fill_(is_twice_BG, _NOTHING)
