"""Grid tasks in the manner of ARC: demonstrations of a rule, queries, and which are held out.

A hash splits tasks and rules into those to train on and those held out, so that no held-out one is
ever trained on, in whatever order they are drawn.

Shapes: H rows and W columns of a grid, whose cells are colours 0 (background) to 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COLOURS = 10
# One rule in five is held out.
_HELD_OUT = 5

Grid = NDArray[np.int64]
Generator = np.random.Generator


class Pair(NamedTuple):
    """A grid, and the output that its task demands for it."""

    input: Grid
    output: Grid


@dataclass(frozen=True)
class GridTask:
    """Demonstrations of a rule, and queries to apply it to."""

    name: str
    demonstrations: tuple[Pair, ...]
    queries: tuple[Pair, ...]


def is_held_out(key: object) -> bool:
    """Return whether the rule or task of this key is held out from training: one in five is."""
    digest = blake2b(repr(key).encode(), digest_size=4, person=b"grid-rules").digest()
    return int.from_bytes(digest, "big") % _HELD_OUT == 0
