"""Rules of grid tasks, drawn from a seeded generator, and pairs of grids that obey them.

A rule is a family with two colours, in some with a direction; no two rules do the same. A held-out
rule combines elements that others have.

Shapes: H rows and W columns of a grid, whose cells are colours 0 (background) to 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from models.arc.tasks import COLOURS, Generator, Grid, Pair, is_held_out

# A grid that its rule leaves unchanged shows nothing; at most this many grids are drawn for a pair.
_TRIES = 20


@dataclass(frozen=True)
class Rule:
    """A family of tasks with its parameters.

    Attributes:
        key: Unique key: the family, then everything that `apply` depends on.
        draw: Draws an input grid of H rows and W columns.
        apply: Maps an input grid to its output.
    """

    key: tuple[object, ...]
    draw: Callable[[Generator, int, int], Grid]
    apply: Callable[[Grid], Grid]

    @property
    def name(self) -> str:
        """The key in words."""
        return " ".join(map(str, self.key))


def draw_rule(generator: Generator, *, held_out: bool) -> Rule:
    """Draw a rule of a random family, from those held out or from those to train on."""
    families = tuple(FAMILIES.values())
    while True:
        rule = families[generator.integers(len(families))](generator)
        if is_held_out(rule.key) == held_out:
            return rule


def draw_pair(rule: Rule, generator: Generator, *, canvas: int) -> Pair:
    """Draw a grid that the rule changes, with its output.

    Args:
        canvas: Most rows and columns of both, >= 4.
    """
    for _ in range(_TRIES):
        rows, columns = (int(n) for n in generator.integers(3, canvas + 1, 2))
        grid = rule.draw(generator, rows, columns)
        output = rule.apply(grid)
        while max(output.shape) > canvas:
            # A rule that doubles a side needs a smaller input.
            rows, columns = max(2, rows // 2), max(2, columns // 2)
            grid = rule.draw(generator, rows, columns)
            output = rule.apply(grid)
        if grid.shape != output.shape or (grid != output).any():
            break
    return Pair(grid, output)


def _colours(generator: Generator) -> tuple[int, int, int]:
    """Two colours of a rule, and a third one that it leaves unchanged."""
    old, new, other = generator.choice(np.arange(1, COLOURS), 3, replace=False)
    return int(old), int(new), int(other)


def _scattered(colours: tuple[int, ...], density: float) -> Callable[[Generator, int, int], Grid]:
    """Function that draws cells of some colours on the background."""

    def draw(generator: Generator, rows: int, columns: int) -> Grid:
        grid = generator.choice(np.array(colours), (rows, columns))
        return np.where(generator.random((rows, columns)) < density, grid, 0)

    return draw


def _recoloured(
    name: str, generator: Generator, move: Callable[[Grid], Grid], *variant: object
) -> Rule:
    """Rule that moves cells and replaces one colour by another."""
    old, new, other = _colours(generator)
    key = (name, *variant, old, new)
    draw = _scattered((old, old, other), 0.6)
    return Rule(key, draw, lambda grid: move(np.where(grid == old, new, grid)))


def _recolour(generator: Generator) -> Rule:
    """Replace one colour by another."""
    return _recoloured("recolour", generator, lambda grid: grid)


def _swap(generator: Generator) -> Rule:
    """Exchange two colours."""
    one, two = sorted(_colours(generator)[:2])

    def apply(grid: Grid) -> Grid:
        return np.where(grid == one, two, np.where(grid == two, one, grid))

    return Rule(("swap", one, two), _scattered((one, two), 0.7), apply)


def _keep(generator: Generator) -> Rule:
    """Turn all but one colour into background, and that one into another colour."""
    old, new, other = _colours(generator)
    draw = _scattered((old, new, other), 0.7)
    return Rule(("keep", old, new), draw, lambda grid: np.where(grid == old, new, 0))


def _fill(generator: Generator) -> Rule:
    """Turn the background into a colour, and one colour into background."""
    old, new, other = _colours(generator)

    def apply(grid: Grid) -> Grid:
        return np.where(grid == 0, new, np.where(grid == old, 0, grid))

    return Rule(("fill", old, new), _scattered((old, other), 0.5), apply)


def _frame(generator: Generator) -> Rule:
    """Give the outermost cells a colour, and remove another one from the inner cells."""
    old, new, other = _colours(generator)

    def apply(grid: Grid) -> Grid:
        framed = np.full_like(grid, new)
        inner = grid[1:-1, 1:-1]
        framed[1:-1, 1:-1] = np.where(inner == old, 0, inner)
        return framed

    return Rule(("frame", old, new), _scattered((old, other), 0.5), apply)


def _mirror(generator: Generator) -> Rule:
    """Mirror left and right, or top and bottom, and replace one colour by another."""
    axis = int(generator.integers(2))
    return _recoloured("mirror", generator, lambda grid: np.flip(grid, axis), axis)


def _turn(generator: Generator) -> Rule:
    """Transpose, turn by a half or turn by a quarter, and replace one colour by another."""
    how = int(generator.integers(3))
    turns: Mapping[int, Callable[[Grid], Grid]] = {
        0: np.transpose,
        1: lambda grid: np.rot90(grid, 2),
        2: lambda grid: np.rot90(grid, -1),
    }
    return _recoloured("turn", generator, turns[how], how)


def _shift(generator: Generator) -> Rule:
    """Move all cells by one, around the edge, and replace one colour by another."""
    axis, by = int(generator.integers(2)), int(generator.choice((-1, 1)))
    return _recoloured("shift", generator, lambda grid: np.roll(grid, by, axis), axis, by)


def _fall(generator: Generator) -> Rule:
    """Let coloured cells fall to an edge, in their order, and replace one colour by another."""
    turns = int(generator.integers(4))

    def move(grid: Grid) -> Grid:
        turned = np.rot90(grid, turns)
        # A stable sort by 'is coloured' moves the background up.
        order = np.argsort(turned != 0, axis=0, kind="stable")
        return np.rot90(np.take_along_axis(turned, order, axis=0), -turns)

    return _recoloured("fall", generator, move, turns)


def _crop(generator: Generator) -> Rule:
    """Cut out the coloured part, and replace one colour by another."""
    old, new, other = _colours(generator)

    def draw(rng: Generator, rows: int, columns: int) -> Grid:
        grid = np.zeros((rows, columns), np.int64)
        h, w = (int(rng.integers(1, n)) for n in (rows, columns))
        top, left = int(rng.integers(rows - h + 1)), int(rng.integers(columns - w + 1))
        grid[top : top + h, left : left + w] = rng.choice(np.array((old, other)), (h, w))
        return grid

    def apply(grid: Grid) -> Grid:
        rows, columns = np.nonzero(grid)
        cut = grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return np.where(cut == old, new, cut)

    return Rule(("crop", old, new), draw, apply)


def _double(generator: Generator) -> Rule:
    """Repeat the grid, mirrored or not, and replace one colour by another."""
    axis, is_mirrored = int(generator.integers(2)), bool(generator.integers(2))

    def move(grid: Grid) -> Grid:
        second = np.flip(grid, axis) if is_mirrored else grid
        return np.concatenate((grid, second), axis)

    return _recoloured("double", generator, move, axis, is_mirrored)


def _enclose(generator: Generator) -> Rule:
    """Give the neighbours of single cells a colour."""
    seed, new, _ = _colours(generator)

    def draw(rng: Generator, rows: int, columns: int) -> Grid:
        grid = np.zeros((rows, columns), np.int64)
        for _ in range(int(rng.integers(1, 3))):
            grid[rng.integers(rows), rng.integers(columns)] = seed
        return grid

    def apply(grid: Grid) -> Grid:
        padded = np.pad(grid == seed, 1)
        near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        return np.where(near & (grid == 0), new, grid)

    return Rule(("enclose", seed, new), draw, apply)


FAMILIES: Mapping[str, Callable[[Generator], Rule]] = {
    "recolour": _recolour,
    "swap": _swap,
    "keep": _keep,
    "fill": _fill,
    "frame": _frame,
    "mirror": _mirror,
    "turn": _turn,
    "shift": _shift,
    "fall": _fall,
    "crop": _crop,
    "double": _double,
    "enclose": _enclose,
}
