"""The two streams: results on stdout, everything else on stderr.

Text is printed literally, because names of studies and values of parameters may hold what rich
would interpret as markup or an emoji. Styled parts are `Text` objects.
"""

from __future__ import annotations

import sys
from typing import Protocol, Self

from rich.console import Console
from rich.text import Text

# Without a terminal rich assumes 80 columns, which would cut a table in a file or a pipe.
_WIDTH = None if sys.stdout.isatty() else 240

errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
results = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=_WIDTH)


class _Part(Protocol):
    """The part of a display that rich redraws in place: a live view, a status, a bar."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Redrawn:
    """Base of a display whose part is redrawn in place inside a `with` block.

    Args:
        part: The part; None where lines are printed instead, as without a terminal.
    """

    def __init__(self, part: _Part | None) -> None:
        self._part = part

    def __enter__(self) -> Self:
        if self._part is not None:
            self._part.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._part is not None:
            self._part.stop()


def labelled(label: str, value: str, *, style: str = "bold", width: int = 10) -> Text:
    """Format a line that starts with a highlighted label."""
    return Text.assemble((f"{label:<{width}}", style), f" {value}")


def state_line(state: str, text: str) -> Text:
    """Format a check's line: its state, `ok`, `warning` or `failed`, and the given text."""
    style = {"ok": "green", "warning": "yellow", "failed": "red"}[state]
    shown = "FAILED" if state == "failed" else state
    line = Text.assemble((f"{shown:<7}", style), f"  {text}")
    line.rstrip()
    return line


def duration(seconds: float) -> str:
    """Format seconds for people: '0.4 s', '34 s', '2 min 41 s', '3 h 05 min'."""
    if 0.05 <= seconds < 1:
        return f"{seconds:.1g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
