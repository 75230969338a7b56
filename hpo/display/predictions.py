"""Predictions on the terminal: figures in a table below the true ones, grids as coloured cells."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo.database.retention import Collected, Limits
from hpo.display.console import results

_TEXT_CHARS = 100
# Grid puzzles are usually shown in these colours: black, blue, red, green, yellow, grey, magenta,
# orange, cyan, maroon.
_PALETTE = (
    *("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00"),
    *("#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"),
)
_DARK = (0, 1, 9)

Row = Mapping[str, Any]


def print_predictions(rows: Sequence[Row]) -> None:
    """Print predictions on stdout, sample by sample."""
    by_sample = sorted(rows, key=lambda row: (row["sample"], row["step"]))
    for sample, group in groupby(by_sample, key=lambda row: row["sample"]):
        some = _named(list(group))
        good = [row for row in some if row["error"] is None]
        heading = Text(f"sample {sample}", style="bold")
        if good and good[0]["kind"] != "grid":
            heading.append(f"  {_figures(good[0]['input'])}", style="not bold")
        results.print(heading)
        if good:
            kind = good[0]["kind"]
            shown = {"grid": _grids, "table": _table}.get(kind, _texts)(good)
            results.print(shown)
        for row in some:
            if row["error"] is not None:
                results.print(Text(f"  {row['when']}: {row['error']}", style="red"))
        results.print()


def print_collected(found: Collected, limits: Limits, *, dry_run: bool) -> None:
    """Print how many predictions were removed, and how many stay."""
    reasons = {
        f"older than {limits.days:g} days": found.too_old,
        f"beyond {limits.megabytes:g} MB": found.too_many,
        "of studies that are gone": found.of_gone_studies,
    }
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    done = "would be removed" if dry_run else "removed"
    results.print(
        f"{found.removed:,} predictions ({_size(found.removed_bytes)}) {done}"
        f"{f': {why}' if why else ''}; {found.kept:,} ({_size(found.kept_bytes)}) "
        f"{'would stay' if dry_run else 'stay'}"
    )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _grids(rows: Sequence[Row]) -> RenderableType:
    """Lay out the input, the target and the prediction of each epoch side by side."""
    first = rows[0]
    shown = [_grid("input", first["input"]), _grid("target", first["target"])]
    for row in rows:
        label = f"{row['when']}: {_figure(row['score'], '.2f')}"
        # The label names a wrong size, because the score may be high in spite of it.
        label += " (other size)" * (_size_of(row["prediction"]) != _size_of(first["target"]))
        shown.append(_grid(label, row["prediction"]))
    return Columns(shown, padding=(1, 3))


def _size_of(rows: Sequence[Sequence[int]]) -> tuple[int, int]:
    return len(rows), len(rows[0]) if rows else 0


def _grid(label: str, rows: Sequence[Sequence[int]]) -> RenderableType:
    lines: list[Text] = [Text(label, style="dim")]
    for row in rows:
        line = Text()
        for cell in row:
            ink = "white" if cell in _DARK else "black"
            line.append(f"{cell} ", style=f"{ink} on {_PALETTE[cell % len(_PALETTE)]}")
        lines.append(line)
    return Group(*(lines if rows else [*lines, Text("(empty)")]))


def _table(rows: Sequence[Row]) -> RenderableType:
    """Lay out the target figures, and the predicted ones of each epoch below them."""
    target = _mappings(rows[0]["target"])
    names = list(dict.fromkeys(name for one in target for name in one))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", "score", *names):
        table.add_column(column, justify="right" if column else "left")
    _add(table, "  target", "", target, names, style="bold")
    for row in rows:
        found = _mappings(row["prediction"])
        _add(table, f"  {row['when']}", _figure(row["score"]), found, names)
    return table


def _add(
    table: Table,
    label: str,
    score: str,
    lines: Sequence[Row],
    names: Iterable[str],
    *,
    style: str = "",
) -> None:
    for number, line in enumerate(lines or [{}]):
        head = (label, score) if number == 0 else ("", "")
        table.add_row(*head, *(_figure(line.get(name)) for name in names), style=style)


def _mappings(value: Any) -> list[Row]:
    listed = value if isinstance(value, list) else [value]
    return [one if isinstance(one, Mapping) else {"value": one} for one in listed]


def _texts(rows: Sequence[Row]) -> RenderableType:
    lines = [f"  target: {_short(rows[0]['target'])}"]
    lines += [
        f"  {row['when']} ({_figure(row['score'])}): {_short(row['prediction'])}" for row in rows
    ]
    return Text("\n".join(lines))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    is_long = len(text) > _TEXT_CHARS and sys.stdout.isatty()
    return f"{text[:_TEXT_CHARS]}…" if is_long else text


def _figures(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_figure(one)}" for name, one in value.items())
    return _short(value)


def _figure(value: Any, form: str = ".5g") -> str:
    return format(value, form) if isinstance(value, float) else "-" if value is None else str(value)


def _named(rows: Sequence[Row]) -> list[Row]:
    """Add `when` to a sample's rows: the epoch if all were made at epoch ends, else the step."""
    lengths = {row["step"] / row["epoch"] if row["epoch"] else None for row in rows if row["step"]}
    by = "epoch" if len(lengths) < 2 and None not in lengths else "step"
    return [{**row, "when": f"{by} {row[by]}"} for row in rows]
