"""Grid tasks as tensors: canvases of cells, and demonstrations as a sequence of symbols.

A grid lies in the upper left corner of a square canvas; the cells beyond it hold `PAD`. A sequence
has the cells of a demonstration in reading order, each input cell followed by the output cell of
the same place, and a separator after each demonstration. It contains nothing of a query.

Shapes: B tasks, Q queries of each, X = B·Q, D demonstrations, S side of the canvas, T symbols,
2 = rows, columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.arc.tasks import COLOURS, Grid, GridTask

PAD = COLOURS
# The symbols are those of input cells, those of output cells, and a separator. A colour has two
# symbols because nothing else tells a language model whether it reads an input or an output.
SYMBOLS = (*"0123456789.", *"abcdefghij_", "|")
_SEPARATOR = len(SYMBOLS) - 1


class GridBatch(NamedTuple):
    """A batch of tasks and their queries.

    Attributes:
        step: Step of the training that the batch belongs to.
        symbols_BT: int64, the demonstrations alone, as indices into `SYMBOLS`.
        input_XSS, target_XSS: int64, colours or `PAD`.
        input_size_X2, size_X2: int64, rows and columns of input and target.
    """

    step: int
    symbols_BT: Tensor
    input_XSS: Tensor
    input_size_X2: Tensor
    target_XSS: Tensor
    size_X2: Tensor


def encode(
    tasks: Sequence[GridTask], *, canvas: int, device: torch.device, step: int = 0
) -> GridBatch:
    """Encode tasks with equal numbers of demonstrations, and of queries, as tensors."""
    queries = [pair for task in tasks for pair in task.queries]
    shown = [
        [(_on_canvas(p.input, canvas), _on_canvas(p.output, canvas)) for p in task.demonstrations]
        for task in tasks
    ]
    input_XSS, target_XSS = (
        _tensor([_on_canvas(grid, canvas) for grid in grids], device)
        for grids in zip(*queries, strict=True)
    )
    input_size_X2, size_X2 = (
        _tensor([grid.shape for grid in grids], device) for grids in zip(*queries, strict=True)
    )
    symbols_BT = _symbols(_tensor(shown, device))
    return GridBatch(step, symbols_BT, input_XSS, input_size_X2, target_XSS, size_X2)


def inside(size_X2: Tensor, canvas: int) -> Tensor:
    """Mask of the cells of a canvas that grids of some sizes cover, (X, S, S), bool."""
    at_S = torch.arange(canvas, device=size_X2.device)
    rows_XS, columns_XS = (at_S < size_X2[:, axis, None] for axis in (0, 1))
    return rows_XS[:, :, None] & columns_XS[:, None, :]


def _symbols(shown_BD2SS: Tensor) -> Tensor:
    """The sequence of demonstrations, (B, T) with T = D (2 S² + 1)."""
    offset_2 = torch.tensor((0, COLOURS + 1), device=shown_BD2SS.device)
    cells_BDC2 = shown_BD2SS.flatten(3).transpose(2, 3) + offset_2
    separator_BD1 = cells_BDC2.new_full((*cells_BDC2.shape[:2], 1), _SEPARATOR)
    return torch.cat((cells_BDC2.flatten(2), separator_BD1), dim=-1).flatten(1)


def _on_canvas(grid: Grid, canvas: int) -> Grid:
    padded = np.full((canvas, canvas), PAD, np.int64)
    padded[: grid.shape[0], : grid.shape[1]] = grid
    return padded


def _tensor(values: Sequence[object], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(values)).to(device)
