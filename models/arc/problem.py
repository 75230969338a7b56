"""The grid tasks of a study: sizes, source, and validation set.

Border: data that all trials share; the objective trains on it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from models.arc.encoding import GridBatch, encode
from models.arc.files import read_folder
from models.arc.sources import DrawnTasks, FileTasks, TaskSource

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of the problem.

    Attributes:
        canvas: Most rows and columns of a drawn grid.
        file_canvas: Most rows and columns of a grid from a file.
        width, layers: Width and layers of a new language model.
    """

    canvas: int
    file_canvas: int
    demonstrations: int
    width: int
    layers: int
    channels: int
    prompt: int
    batch: int
    queries: int
    steps_per_epoch: int
    validation: int


SIZES = {
    "unit": Size(
        canvas=4,
        file_canvas=6,
        demonstrations=1,
        width=16,
        layers=1,
        channels=8,
        prompt=8,
        batch=2,
        queries=2,
        steps_per_epoch=4,
        validation=12,
    ),
    "tiny": Size(
        canvas=6,
        file_canvas=10,
        demonstrations=2,
        width=64,
        layers=2,
        channels=48,
        prompt=64,
        batch=16,
        queries=4,
        steps_per_epoch=50,
        validation=256,
    ),
    "base": Size(
        canvas=10,
        file_canvas=20,
        demonstrations=3,
        width=128,
        layers=4,
        channels=96,
        prompt=128,
        batch=32,
        queries=4,
        steps_per_epoch=200,
        validation=512,
    ),
    "full": Size(
        canvas=20,
        file_canvas=30,
        demonstrations=3,
        width=256,
        layers=6,
        channels=128,
        prompt=256,
        batch=32,
        queries=4,
        steps_per_epoch=500,
        validation=512,
    ),
}


@dataclass(frozen=True)
class Problem:
    """Data that all trials of a study share: the source of tasks, and the validation set."""

    source: TaskSource
    validation: GridBatch
    # Each validation task has the index of another one; there are none if all have one name.
    others: Sequence[int]


@lru_cache(maxsize=1)
def problem(size: str, problem_seed: int, arc_path: str, device: str) -> Problem:
    """Tasks of a size, cached for the next trial of this process."""
    shape = SIZES[size]
    source: TaskSource
    if arc_path:
        files = read_folder(Path(arc_path))
        found = FileTasks(files, canvas=shape.file_canvas, demonstrations=shape.demonstrations)
        _logger.info("%d of %d tasks fit %d×%d cells", len(found), len(files), *[found.canvas] * 2)
        source = found
    else:
        source = DrawnTasks(
            canvas=shape.canvas,
            demonstrations=shape.demonstrations,
            seed=problem_seed,
        )
    tasks = source.validation(shape.validation)
    validation = encode(tasks, canvas=source.canvas, device=torch.device(device))
    return Problem(source, validation, _others([task.name for task in tasks]))


def _others(names: Sequence[str]) -> list[int]:
    """Index of a task of another name for each, about half the list away; empty without others."""
    count = len(names)
    if len(set(names)) < 2:
        return []
    ways = [(count // 2 + step) % count for step in range(count)]
    return [
        next((i + way) % count for way in ways if names[(i + way) % count] != names[i])
        for i in range(count)
    ]
