"""Grid tasks from files in the public ARC format: JSON with `train` and `test`, pairs of grids.

Border: reading and checking; `sources` chooses the tasks to train on and those held out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.arc.tasks import COLOURS, Grid, Pair

# The format allows no larger grids.
_MOST_SIDE = 30


@dataclass(frozen=True)
class FileTask:
    """A task as in its file: pairs to learn the rule from, and pairs to apply it to."""

    name: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def side(self) -> int:
        """Largest number of rows or columns of its grids."""
        grids = (grid for pair in (*self.train, *self.test) for grid in pair)
        return int(max(max(grid.shape) for grid in grids))


def read_folder(folder: Path) -> list[FileTask]:
    """Read the tasks of all .json files of a folder, in the order of their names.

    Raises:
        ValueError: There is no file, or one is malformed; the message names file and place.
    """
    if not folder.is_dir():
        raise ValueError(f"'{folder}' is no folder; name one that holds task files (.json)")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ValueError(f"'{folder}' holds no task file (.json)")
    return [read_file(file) for file in files]


def read_file(file: Path) -> FileTask:
    """Read the task of a file.

    Raises:
        ValueError: The file is malformed; the message names file and place.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {error.lineno}, column {error.colno}: no JSON ({error.msg})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: no text in UTF-8, or nested too deeply ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{file}: a {type(content).__name__}; an object with train, test is wanted"
        )
    train, test = (_pairs(content.get(part), f"{file}: {part}") for part in ("train", "test"))
    return FileTask(file.stem, train, test)


def _pairs(content: Any, place: str) -> tuple[Pair, ...]:
    if not isinstance(content, list) or not content:
        raise ValueError(f"{place} is {_shown(content)}; a list of at least one pair is wanted")
    pairs = []
    for number, pair in enumerate(content):
        here = f"{place}[{number}]"
        if not isinstance(pair, dict) or not {"input", "output"} <= set(pair):
            raise ValueError(f"{here} is {_shown(pair)}; an object with input and output is wanted")
        grids = (_grid(pair[part], f"{here}.{part}") for part in ("input", "output"))
        pairs.append(Pair(*grids))
    return tuple(pairs)


def _grid(content: Any, place: str) -> Grid:
    rows = content if isinstance(content, list) else []
    if not rows or not all(isinstance(row, list) and row for row in rows):
        raise ValueError(f"{place} is {_shown(content)}; a list of rows of colours is wanted")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{place}[{number}] has {len(row)} cells, its first row {len(rows[0])}"
            )
        for column, cell in enumerate(row):
            if type(cell) is not int or not 0 <= cell < COLOURS:
                raise ValueError(
                    f"{place}[{number}][{column}] is {_shown(cell)}; a colour is 0 to {COLOURS - 1}"
                )
    if max(len(rows), len(rows[0])) > _MOST_SIDE:
        raise ValueError(
            f"{place} is {len(rows)}×{len(rows[0])}; grids have up to {_MOST_SIDE}×{_MOST_SIDE}"
        )
    return np.array(rows, np.int64)


def _shown(content: Any) -> str:
    text = json.dumps(content)
    return "missing" if content is None else text if len(text) < 40 else f"{text[:40]}…"
