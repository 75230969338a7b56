"""Request and result of an objective's evaluation: tables, figures, remarks.

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
    """The request cannot be evaluated; the message has the reason and the cure."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Request to evaluate a trained network.

    Attributes:
        quick: True for fewer samples, in under a minute on two cores.
        samples: File of samples to evaluate on instead of drawn ones.
        seed: Seed of the test set: 0 is the frozen one, others are fresh draws.
        tell: Called with a line for the user before each part.
        must_stop: Returns True when the evaluation must end; then raise `InterruptedError`.
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
        name: Name of its CSV file, without the ending.
        title: Title above the table.
        head: Headings of the columns.
        rows: Cells by row, as many in each as headings.
        note: Explanation below the table.
    """

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` if a row has more or fewer cells than the head."""
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
        name: Name of its PNG file, without the ending.
        title: Title of the picture.
        draw: Draws onto the canvas that it is given.
        size_in: Width and height in inches.
    """

    name: str
    title: str
    draw: Callable[[Canvas], None]
    size_in: tuple[float, float] = (8.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        tables: Tables to show and to write as CSV files.
        figures: Pictures to write as PNG files.
        remarks: Sentences for the user on the measurement, its data, and missed targets.
    """

    tables: Sequence[Table]
    figures: Sequence[Figure] = ()
    remarks: Sequence[str] = ()
