"""Grid tasks in the manner of ARC, drawn from a seeded generator: a rule, demonstrations, a query.

A rule is a family and its parameters, colours or directions among them. Rules are split by a hash
into those to train on and those held out, so that no held-out rule is ever trained on, whoever
draws, in whatever order.

Shapes: H rows and W columns of a grid, whose cells are colours 0 (background) to 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        key: What tells it from every other rule; the family's name first.
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


def _palette(generator: Generator, count: int) -> tuple[int, ...]:
    return tuple(int(c) for c in generator.choice(np.arange(1, COLOURS), count, replace=False))


def _scattered(colours: Sequence[int], density: float) -> Callable[[Generator, int, int], Grid]:
    """Cells of some colours on the background."""

    def draw(generator: Generator, rows: int, columns: int) -> Grid:
        grid = generator.choice(np.array(colours), (rows, columns))
        return np.where(generator.random((rows, columns)) < density, grid, 0)

    return draw


def _recolour(generator: Generator) -> Rule:
    """One colour becomes another."""
    old, new, other = _palette(generator, 3)
    key = ("recolour", old, new)
    return Rule(key, _scattered((old, old, other), 0.7), lambda g: np.where(g == old, new, g))


def _swap(generator: Generator) -> Rule:
    """Two colours change places."""
    one, two = sorted(_palette(generator, 2))

    def apply(grid: Grid) -> Grid:
        return np.where(grid == one, two, np.where(grid == two, one, grid))

    return Rule(("swap", one, two), _scattered((one, two), 0.7), apply)


def _keep(generator: Generator) -> Rule:
    """All but one colour become background."""
    kept, *others = _palette(generator, 3)
    key = ("keep", kept, *sorted(others))
    return Rule(key, _scattered((kept, *others), 0.7), lambda g: np.where(g == kept, g, 0))


def _fill(generator: Generator) -> Rule:
    """The background becomes a colour."""
    new, *others = _palette(generator, 3)
    key = ("fill", new, *sorted(others))
    return Rule(key, _scattered(others, 0.5), lambda g: np.where(g == 0, new, g))


def _frame(generator: Generator) -> Rule:
    """The outermost cells take a colour."""
    new, *others = _palette(generator, 3)

    def apply(grid: Grid) -> Grid:
        framed = np.full_like(grid, new)
        framed[1:-1, 1:-1] = grid[1:-1, 1:-1]
        return framed

    return Rule(("frame", new, *sorted(others)), _scattered(others, 0.5), apply)


def _mirror(generator: Generator) -> Rule:
    """Left and right, or top and bottom, change places."""
    axis, colours = int(generator.integers(2)), _palette(generator, 3)
    key = ("mirror", axis, *sorted(colours))
    return Rule(key, _scattered(colours, 0.6), lambda g: np.flip(g, axis))


def _turn(generator: Generator) -> Rule:
    """A quarter turn, a half turn, or the exchange of rows and columns."""
    how, colours = int(generator.integers(3)), _palette(generator, 3)
    turns: Mapping[int, Callable[[Grid], Grid]] = {
        0: np.transpose,
        1: lambda grid: np.rot90(grid, 2),
        2: lambda grid: np.rot90(grid, -1),
    }
    return Rule(("turn", how, *sorted(colours)), _scattered(colours, 0.6), turns[how])


def _shift(generator: Generator) -> Rule:
    """All cells move by one in a direction, around the edge."""
    axis, by = int(generator.integers(2)), int(generator.choice((-1, 1)))
    colours = _palette(generator, 2)
    key = ("shift", axis, by, *sorted(colours))
    return Rule(key, _scattered(colours, 0.5), lambda g: np.roll(g, by, axis))


def _fall(generator: Generator) -> Rule:
    """Coloured cells fall to an edge, in their order."""
    turns, colours = int(generator.integers(4)), _palette(generator, 2)

    def apply(grid: Grid) -> Grid:
        turned = np.rot90(grid, turns)
        # A stable sort by 'is coloured' moves the background up.
        order = np.argsort(turned != 0, axis=0, kind="stable")
        return np.rot90(np.take_along_axis(turned, order, axis=0), -turns)

    return Rule(("fall", turns, *sorted(colours)), _scattered(colours, 0.4), apply)


def _crop(generator: Generator) -> Rule:
    """What is coloured, cut out."""
    colours = _palette(generator, 2)

    def draw(rng: Generator, rows: int, columns: int) -> Grid:
        grid = np.zeros((rows, columns), np.int64)
        h, w = (int(rng.integers(1, n)) for n in (rows, columns))
        top, left = int(rng.integers(rows - h + 1)), int(rng.integers(columns - w + 1))
        grid[top : top + h, left : left + w] = rng.choice(np.array(colours), (h, w))
        return grid

    def apply(grid: Grid) -> Grid:
        rows, columns = np.nonzero(grid)
        return grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    return Rule(("crop", *sorted(colours)), draw, apply)


def _double(generator: Generator) -> Rule:
    """The grid twice, side by side or one below the other, the second one mirrored or not."""
    axis, is_mirrored = int(generator.integers(2)), bool(generator.integers(2))
    colours = _palette(generator, 2)

    def apply(grid: Grid) -> Grid:
        second = np.flip(grid, axis) if is_mirrored else grid
        return np.concatenate((grid, second), axis)

    key = ("double", axis, is_mirrored, *sorted(colours))
    return Rule(key, _scattered(colours, 0.6), apply)


def _enclose(generator: Generator) -> Rule:
    """The neighbours of single cells take a colour."""
    new, seed = _palette(generator, 2)

    def draw(rng: Generator, rows: int, columns: int) -> Grid:
        grid = np.zeros((rows, columns), np.int64)
        for _ in range(int(rng.integers(1, 3))):
            grid[rng.integers(rows), rng.integers(columns)] = seed
        return grid

    def apply(grid: Grid) -> Grid:
        padded = np.pad(grid == seed, 1)
        near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        return np.where(near & (grid == 0), new, grid)

    return Rule(("enclose", new, seed), draw, apply)


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
