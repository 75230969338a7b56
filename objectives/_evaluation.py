"""What an evaluation asks of an objective, and what it gives: tables, figures, remarks.

Border: plain data; an objective fills it, the service writes it to files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


class CannotEvaluate(Exception):
    """What was asked for cannot be evaluated; the message says why, and what to write."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a trained network is to be evaluated.

    Attributes:
        quick: In under a minute on two cores, with fewer samples.
        samples: A file of samples to evaluate on in place of drawn ones.
        seed: Of the test set: 0 is the frozen one, others are fresh draws.
        tell: Called with a line for people whenever a part is done.
        must_stop: Whether to give up; then raise `InterruptedError`.
    """

    quick: bool = False
    samples: Path | None = None
    seed: int = 0
    tell: Callable[[str], None] = field(default=lambda line: None)
    must_stop: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: floats are shown with three significant digits, None as a dash.

    Attributes:
        name: Of its CSV file, without the ending.
        note: What a reader has to know to read it.
    """

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` where a row has more or fewer cells than the head."""
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(
                    f"table '{self.name}' has a row of {len(row)} cells under a head of "
                    f"{len(self.head)}: {tuple(row)}"
                )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One picture, drawn by matplotlib onto an empty canvas.

    Attributes:
        name: Of its PNG file, without the ending.
        size_in: Width and height in inches.
    """

    name: str
    title: str
    draw: Callable[[Canvas], None]
    size_in: tuple[float, float] = (8.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a trained network is.

    Attributes:
        remarks: Sentences for people: what was measured, on what, what falls short.
    """

    tables: Sequence[Table]
    figures: Sequence[Figure] = ()
    remarks: Sequence[str] = ()
