"""The result of an evaluation, and its tables and figures in a folder.

    evaluation.md    the trained configuration, every table, the figures
    NAME.csv         each table; NAME.png each figure
    evaluation.json  all tables for programs, and the list of these files

Border: formats and writes; `evaluation` has the objective measure.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError
from hpo.files import csv_text, finite
from hpo.files import write as write_file
from hpo.refit import curves
from hpo.refit.weights import Trained, locate
from objectives import Evaluation, Figure, Table

_DPI = 110
_SUMMARY = "evaluation.json"
_FORMAT = "hpo evaluation"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The evaluation of a finished training.

    Attributes:
        file: File of the training.
        trained: Content of that file.
        evaluation: Tables, figures and remarks.
        changed: The objective's files that have changed since the training.
    """

    file: Path
    trained: Trained = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    changed: Sequence[str] = ()

    def write(self, folder: str | Path) -> list[Path]:
        """Write tables and figures to a folder.

        Returns:
            The files, `evaluation.md` first.

        Raises:
            ConfigurationError: The folder cannot be written to.
        """
        return write(self, Path(folder))

    def flat(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        about = self.trained.about
        return {
            "file": str(self.file),
            "objective": about["study"]["objective"],
            "size": about["study"]["size"],
            "params": dict(about["params"]),
            "remarks": list(self.evaluation.remarks),
            "tables": {
                table.name: [
                    {name: _finite(cell) for name, cell in zip(table.head, row, strict=True)}
                    for row in table.rows
                ]
                for table in self.evaluation.tables
            },
        }


@contextmanager
def prepared(path: Path, out: Path | None) -> Iterator[Path]:
    """Make the folder of an evaluation, and test that it is writable before the evaluation starts.

    If the evaluation fails, a folder that was made here is removed.

    Args:
        path: Path of the training, as `evaluate` takes it.
        out: Requested folder; None for `evaluation` in the folder of the file.

    Raises:
        ConfigurationError: The file cannot be found, or the folder cannot be written to.
    """
    folder = out or locate(path).absolute().parent / "evaluation"
    was_there = folder.exists()
    _made(folder)
    try:
        yield folder
    except BaseException:
        if not was_there:
            with suppress(OSError):  # It is not empty.
                folder.rmdir()
        raise


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"the folder '{folder}' cannot be written to: {error.strerror or error}; name another "
            "one with --out"
        ) from error


def write(evaluated: Evaluated, folder: Path) -> list[Path]:
    """Write an evaluation to a folder.

    Returns:
        The files, `evaluation.md` first.

    Raises:
        ConfigurationError: The folder cannot be written to.
    """
    _made(folder)
    found = evaluated.evaluation
    earlier = _files_of_earlier(folder)
    contents = {"evaluation.md": markdown(evaluated).encode()}
    contents |= {f"{table.name}.csv": _csv(table).encode() for table in found.tables}
    contents |= {f"{figure.name}.png": picture(figure) for figure in found.figures}
    files = [*contents, _SUMMARY]
    summary = {"format": _FORMAT, **evaluated.flat(), "files": files}
    for name, content in contents.items():
        write_file(folder / name, content)
    # Files that an earlier evaluation left, perhaps of other scenes, would be taken for this one's.
    # Names are compared without case, as some file systems do.
    kept = {name.casefold() for name in files}
    for name in earlier:
        if name.casefold() not in kept:
            with suppress(OSError, ValueError):
                (folder / name).unlink()
    # The summary comes last: until all files are there, the earlier one lists the earlier files.
    write_file(folder / _SUMMARY, json.dumps(summary, indent=2, default=str).encode())
    return [folder / name for name in files]


def _files_of_earlier(folder: Path) -> list[str]:
    """Return the tables and figures, by plain names, that an earlier evaluation listed here."""
    try:
        summary = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
        listed = summary["files"] if summary["format"] == _FORMAT else []
        return [n for n in listed if Path(n).name == n and Path(n).suffix in (".csv", ".png")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def markdown(evaluated: Evaluated) -> str:
    """Format the whole evaluation as one Markdown document."""
    about, found = evaluated.trained.about, evaluated.evaluation
    study = about["study"]
    lines = [
        f"# {study['objective']}, size {study['size']}: {evaluated.file.name}",
        "",
        f"Trained for {evaluated.trained.epochs} epochs in {evaluated.trained.precision}, seed "
        f"{about['seed']}. Parameters:",
        "",
        ", ".join(f"`{name}` {_cell(value)}" for name, value in about["params"].items()),
        "",
        *(f"- {remark}" for remark in found.remarks),
        "",
    ]
    for table in found.tables:
        lines += [f"## {table.title}", "", table_lines(table), ""]
        lines += [table.note, ""] if table.note else []
    for figure in found.figures:
        lines += [f"## {figure.title}", "", f"![{figure.title}]({figure.name}.png)", ""]
    return "\n".join(lines)


def table_lines(table: Table) -> str:
    """Format a table in Markdown."""
    rows = [table.head, ["---"] * len(table.head), *([_cell(c) for c in r] for r in table.rows)]
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)


def picture(figure: Figure) -> bytes:
    """Draw a figure as a PNG."""
    return curves.png(figure.draw, figure.size_in, dpi=_DPI)


def _csv(table: Table) -> str:
    return csv_text(table.head, ([_finite(cell) for cell in row] for row in table.rows))


def _cell(value: Any) -> str:
    """Format a cell for people, with three significant digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        digits = 3 if abs(value) < 100 else 0
        return f"{value:.{digits}g}" if digits else f"{value:.0f}"
    return str(value).replace("|", r"\|")


def _finite(value: Any) -> Any:
    """Convert a cell for programs: NumPy's and torch's numbers to plain ones, NaN to None."""
    if hasattr(value, "item"):
        value = value.item()
    return finite(value)


def console_table(table: Table) -> Sequence[Sequence[str]]:
    """Return a table's cells as text, the head first."""
    return [list(table.head), *([_cell(cell) for cell in row] for row in table.rows)]
