"""Cells of source positions: the grid that all scenes share, and a finer zoom within it.

The cells of a slot divide the region of the prior among them. The zoom takes a box of 3×3×3 small
cells, and each cell of the grid keeps the volume that the box leaves it. So a sum over the cells of
likelihood times volume is an integral over the region, however narrow the likelihood is. To mean
field, cells that divide the region exactly were worth 0.1 to 0.17 dB.

Shapes: B scenes; G cells of the grid; C all cells, the G of the grid first; Z = C − G of the zoom;
3 = a position as in `estimators.posterior`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.ris.estimators.posterior import Grid

# A volume below this share of a cell counts as this: its logarithm stays finite.
_LEAST_VOLUME = 1e-12


@dataclass(frozen=True)
class Cells:
    """Cells of one slot, in every scene.

    Attributes:
        near_BZ3: Centres of the zoom's cells; Z is 0 without a zoom.
        log_volume_BC: Logarithm of the volumes, in cells of the grid.
    """

    near_BZ3: Tensor
    log_volume_BC: Tensor

    def positions(self, grid_G3: Tensor, index_BX: Tensor) -> Tensor:
        """Centres of cells by their index, BX3."""
        count = len(grid_G3)
        grid_BX3 = grid_G3[index_BX.clamp(max=count - 1)]
        if not self.near_BZ3.shape[1]:
            return grid_BX3
        index_BX1 = (index_BX - count).clamp(min=0).unsqueeze(-1)
        near_BX3 = self.near_BZ3.gather(1, index_BX1.expand(-1, -1, 3))
        return torch.where((index_BX < count).unsqueeze(-1), grid_BX3, near_BX3)


def grid_cells(grid_G3: Tensor, *, batch: int) -> Cells:
    """Return the cells of the grid alone."""
    return Cells(grid_G3.new_empty(batch, 0, 3), grid_G3.new_zeros(batch, len(grid_G3)))


def zoomed_cells(grid: Grid, centre_B3: Tensor, reach_B3: Tensor) -> Cells:
    """Return the cells of the grid with those of a zoom cut out, and then the zoom's 27.

    Args:
        centre_B3: Centre of the zoom, within the region.
        reach_B3: Widths of its cells; the box has three in each coordinate.
    """
    near, volume_BG, volume_BZ = [], None, None
    # Axis by axis: rows of three numbers would leave a processor's vectors empty.
    for axis in range(3):
        low, high, width = grid.low_3[axis], grid.high_3[axis], grid.cell_3[axis]
        centre_B1, reach_B1 = centre_B3[:, axis : axis + 1], reach_B3[:, axis : axis + 1]
        offset_3 = torch.arange(-1.0, 2.0, device=centre_B3.device)
        middle_B3 = centre_B1 + reach_B1 * offset_3
        # The region's edge cuts a cell: beyond it there is no prior.
        first_B3 = (middle_B3 - reach_B1 / 2).clamp(low, high)
        last_B3 = (middle_B3 + reach_B1 / 2).clamp(low, high)
        inside_B3 = (last_B3 - first_B3) / width
        near.append(middle_B3.clamp(low, high))
        cell_G = grid.positions_G3[:, axis]
        shared_BG = torch.minimum(last_B3[:, 2:], cell_G + width / 2)
        shared_BG = shared_BG - torch.maximum(first_B3[:, :1], cell_G - width / 2)
        shared_BG = shared_BG.clamp_(min=0) / width
        volume_BG = shared_BG if volume_BG is None else volume_BG * shared_BG
        volume_BZ = (
            inside_B3
            if volume_BZ is None
            else (volume_BZ.unsqueeze(-1) * inside_B3.unsqueeze(1)).flatten(1)
        )
    assert volume_BG is not None and volume_BZ is not None
    shape = (len(centre_B3), 3, 3, 3)
    near_BXYZ3 = torch.stack(
        [
            near[0][:, :, None, None].expand(shape),
            near[1][:, None, :, None].expand(shape),
            near[2][:, None, None, :].expand(shape),
        ],
        -1,
    )
    volume_BC = torch.cat((1 - volume_BG, volume_BZ), 1).clamp_(min=_LEAST_VOLUME)
    return Cells(near_BXYZ3.flatten(1, 3), volume_BC.log_())
