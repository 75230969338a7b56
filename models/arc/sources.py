"""Sources of grid tasks, the seeded generator or files, and the split for training.

A source gives training tasks in blocks. Within a block the demonstrations stay and only the queries
change, so that the prompts written from the demonstrations can be reused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from models.arc.files import FileTask
from models.arc.rules import draw_pair, draw_rule
from models.arc.tasks import COLOURS, Generator, Grid, GridTask, Pair, is_held_out


class TaskSource(Protocol):
    """Tasks to train on, and others to validate on.

    Attributes:
        canvas: Most rows and columns of their grids.
    """

    canvas: int

    def training(
        self, count: int, queries: int, *, block: Generator, query: Generator
    ) -> list[GridTask]:
        """Return tasks with demonstrations drawn from `block` and queries drawn from `query`."""

    def validation(self, count: int) -> list[GridTask]:
        """Return tasks with one query each, always the same and never trained on."""


class DrawnTasks:
    """Tasks of rules that are drawn anew for each block."""

    def __init__(self, *, canvas: int, demonstrations: int, seed: int) -> None:
        self.canvas = canvas
        self._demonstrations, self._seed = demonstrations, seed

    def training(
        self, count: int, queries: int, *, block: Generator, query: Generator
    ) -> list[GridTask]:
        return [self._draw(queries, block, query, held_out=False) for _ in range(count)]

    def validation(self, count: int) -> list[GridTask]:
        generator = np.random.default_rng(self._seed)
        return [self._draw(1, generator, generator, held_out=True) for _ in range(count)]

    def _draw(
        self, queries: int, block: Generator, query: Generator, *, held_out: bool
    ) -> GridTask:
        rule = draw_rule(block, held_out=held_out)
        demonstrations, asked = (
            tuple(draw_pair(rule, generator, canvas=self.canvas) for _ in range(n))
            for n, generator in ((self._demonstrations, block), (queries, query))
        )
        return GridTask(rule.name, demonstrations, asked)


class FileTasks:
    """Tasks from files, as far as they fit the canvas; one in five, by its name, is held out.

    A training task has some of its pairs as demonstrations and others as queries, with colours
    permuted and grids turned at random. A held-out task is unchanged: its `train` pairs are the
    demonstrations, its `test` pairs the queries.

    Raises:
        ValueError: Too few tasks fit.
    """

    def __init__(self, tasks: Sequence[FileTask], *, canvas: int, demonstrations: int) -> None:
        fitting = [task for task in tasks if task.side <= canvas]
        self.canvas = canvas
        self._demonstrations = demonstrations
        self._training = [task for task in fitting if not is_held_out(task.name)]
        self._held_out = [task for task in fitting if is_held_out(task.name)]
        # One pair must remain for the query.
        self._training = [t for t in self._training if len(t.train) + len(t.test) > 1]
        if not (self._training and self._held_out):
            raise ValueError(
                f"of {len(tasks)} tasks {len(fitting)} fit a canvas of {canvas}×{canvas} cells, "
                f"{len(self._training)} to train on and {len(self._held_out)} held out; give more "
                "of them, or take a larger --size"
            )

    def __len__(self) -> int:
        return len(self._training) + len(self._held_out)

    def training(
        self, count: int, queries: int, *, block: Generator, query: Generator
    ) -> list[GridTask]:
        chosen = [self._training[i] for i in block.integers(len(self._training), size=count)]
        return [self._varied(task, queries, block, query) for task in chosen]

    def validation(self, count: int) -> list[GridTask]:
        tasks = [
            GridTask(task.name, self._shown(task.train), (pair,))
            for task in self._held_out
            for pair in task.test
        ]
        return tasks[:count]

    def _shown(self, pairs: Sequence[Pair]) -> tuple[Pair, ...]:
        """Demonstrations in the number that a prompt needs; too few are repeated."""
        return tuple(pairs[i % len(pairs)] for i in range(self._demonstrations))

    def _varied(self, task: FileTask, queries: int, block: Generator, query: Generator) -> GridTask:
        pairs = [*task.train, *task.test]
        order = block.permutation(len(pairs))
        shown = min(self._demonstrations, len(pairs) - 1)
        # The background keeps its colour.
        colours = np.concatenate(([0], 1 + block.permutation(COLOURS - 1)))
        turns, is_mirrored = int(block.integers(4)), bool(block.integers(2))

        def vary(grid: Grid) -> Grid:
            turned = np.rot90(colours[grid], turns)
            return np.fliplr(turned) if is_mirrored else turned

        varied = [Pair(vary(pairs[i].input), vary(pairs[i].output)) for i in order]
        asked = query.integers(shown, len(pairs), size=queries)
        return GridTask(task.name, self._shown(varied[:shown]), tuple(varied[i] for i in asked))
