"""Grid tasks in the manner of ARC, drawn from a seeded generator: a rule, demonstrations, a query.

A rule is a family with two colours, and with a direction in some; no two rules do the same. Rules
are split by a hash into those to train on and those held out, so that no held-out rule is ever
trained on, whoever draws, in whatever order: a held-out one combines what was met in others.

Shapes: H rows and W columns of a grid, whose cells are colours 0 (background) to 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COLOURS = 10
# One rule in so many is held out.
_HELD_OUT = 5
# So often is a draw repeated that shows nothing: a grid that its rule leaves as it is.
_TRIES = 20

Grid = NDArray[np.int64]
Generator = np.random.Generator


class Pair(NamedTuple):
    """A grid and what its task makes of it."""

    input: Grid
    output: Grid


@dataclass(frozen=True)
class GridTask:
    """Demonstrations of a rule, and queries to apply it to."""

    name: str
    demonstrations: tuple[Pair, ...]
    queries: tuple[Pair, ...]


@dataclass(frozen=True)
class Rule:
    """A family of tasks with its parameters.

    Attributes:
        key: What tells it from every other rule, all that `apply` depends on; the family first.
        draw: A grid to apply it to, of H rows and W columns.
        apply: What it makes of a grid.
    """

    key: tuple[object, ...]
    draw: Callable[[Generator, int, int], Grid]
    apply: Callable[[Grid], Grid]

    @property
    def name(self) -> str:
        """The key in words."""
        return " ".join(map(str, self.key))


def is_held_out(key: object) -> bool:
    """Whether what has this key is kept from training, whoever asks: one in five."""
    digest = blake2b(repr(key).encode(), digest_size=4, person=b"grid-rules").digest()
    return int.from_bytes(digest, "big") % _HELD_OUT == 0


def draw_rule(generator: Generator, *, held_out: bool) -> Rule:
    """A rule of a random family, of those to train on or of those held out."""
    families = tuple(FAMILIES.values())
    while True:
        rule = families[generator.integers(len(families))](generator)
        if is_held_out(rule.key) == held_out:
            return rule


def draw_pair(rule: Rule, generator: Generator, *, canvas: int) -> Pair:
    """A grid that the rule changes, and what it makes of it.

    Args:
        canvas: Most rows and columns of both, >= 4.
    """
    for _ in range(_TRIES):
        rows, columns = (int(n) for n in generator.integers(3, canvas + 1, 2))
        grid = rule.draw(generator, rows, columns)
        output = rule.apply(grid)
        while max(output.shape) > canvas:
            # Of a rule that doubles a side.
            rows, columns = max(2, rows // 2), max(2, columns // 2)
            grid = rule.draw(generator, rows, columns)
            output = rule.apply(grid)
        if grid.shape != output.shape or (grid != output).any():
            break
    return Pair(grid, output)


def _colours(generator: Generator) -> tuple[int, int, int]:
    """Two colours of a rule, and one that it leaves alone."""
    old, new, other = generator.choice(np.arange(1, COLOURS), 3, replace=False)
    return int(old), int(new), int(other)


def _scattered(colours: tuple[int, ...], density: float) -> Callable[[Generator, int, int], Grid]:
    """Cells of some colours on the background."""

    def draw(generator: Generator, rows: int, columns: int) -> Grid:
        grid = generator.choice(np.array(colours), (rows, columns))
        return np.where(generator.random((rows, columns)) < density, grid, 0)

    return draw


def _recoloured(
    name: str, generator: Generator, move: Callable[[Grid], Grid], *variant: object
) -> Rule:
    """A rule that moves cells about, and has one colour become another."""
    old, new, other = _colours(generator)
    key = (name, *variant, old, new)
    draw = _scattered((old, old, other), 0.6)
    return Rule(key, draw, lambda grid: move(np.where(grid == old, new, grid)))


def _recolour(generator: Generator) -> Rule:
    """One colour becomes another."""
    return _recoloured("recolour", generator, lambda grid: grid)


def _swap(generator: Generator) -> Rule:
    """Two colours change places."""
    one, two = sorted(_colours(generator)[:2])

    def apply(grid: Grid) -> Grid:
        return np.where(grid == one, two, np.where(grid == two, one, grid))

    return Rule(("swap", one, two), _scattered((one, two), 0.7), apply)


def _keep(generator: Generator) -> Rule:
    """All but one colour become background, and that one another colour."""
    old, new, other = _colours(generator)
    draw = _scattered((old, new, other), 0.7)
    return Rule(("keep", old, new), draw, lambda grid: np.where(grid == old, new, 0))


def _fill(generator: Generator) -> Rule:
    """The background becomes a colour, and one colour the background."""
    old, new, other = _colours(generator)

    def apply(grid: Grid) -> Grid:
        return np.where(grid == 0, new, np.where(grid == old, 0, grid))

    return Rule(("fill", old, new), _scattered((old, other), 0.5), apply)


def _frame(generator: Generator) -> Rule:
    """The outermost cells take a colour, and within it another one vanishes."""
    old, new, other = _colours(generator)

    def apply(grid: Grid) -> Grid:
        framed = np.full_like(grid, new)
        inner = grid[1:-1, 1:-1]
        framed[1:-1, 1:-1] = np.where(inner == old, 0, inner)
        return framed

    return Rule(("frame", old, new), _scattered((old, other), 0.5), apply)


def _mirror(generator: Generator) -> Rule:
    """Left and right, or top and bottom, change places; one colour becomes another."""
    axis = int(generator.integers(2))
    return _recoloured("mirror", generator, lambda grid: np.flip(grid, axis), axis)


def _turn(generator: Generator) -> Rule:
    """Rows and columns change places, a half turn, or a quarter; one colour becomes another."""
    how = int(generator.integers(3))
    turns: Mapping[int, Callable[[Grid], Grid]] = {
        0: np.transpose,
        1: lambda grid: np.rot90(grid, 2),
        2: lambda grid: np.rot90(grid, -1),
    }
    return _recoloured("turn", generator, turns[how], how)


def _shift(generator: Generator) -> Rule:
    """All cells move by one, around the edge; one colour becomes another."""
    axis, by = int(generator.integers(2)), int(generator.choice((-1, 1)))
    return _recoloured("shift", generator, lambda grid: np.roll(grid, by, axis), axis, by)


def _fall(generator: Generator) -> Rule:
    """Coloured cells fall to an edge, in their order; one colour becomes another."""
    turns = int(generator.integers(4))

    def move(grid: Grid) -> Grid:
        turned = np.rot90(grid, turns)
        # A stable sort by 'is coloured' moves the background up.
        order = np.argsort(turned != 0, axis=0, kind="stable")
        return np.rot90(np.take_along_axis(turned, order, axis=0), -turns)

    return _recoloured("fall", generator, move, turns)


def _crop(generator: Generator) -> Rule:
    """What is coloured, cut out; one colour becomes another."""
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
    """The grid twice, the second one mirrored or not; one colour becomes another."""
    axis, is_mirrored = int(generator.integers(2)), bool(generator.integers(2))

    def move(grid: Grid) -> Grid:
        second = np.flip(grid, axis) if is_mirrored else grid
        return np.concatenate((grid, second), axis)

    return _recoloured("double", generator, move, axis, is_mirrored)


def _enclose(generator: Generator) -> Rule:
    """The neighbours of single cells take a colour."""
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
