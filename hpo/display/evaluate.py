"""An evaluation on the terminal: the running part, then the first tables and the remarks."""

from __future__ import annotations

import time

from rich.status import Status
from rich.table import Table as Grid

from hpo.display.console import Redrawn, duration, errors, results
from hpo.refit.evaluation_files import Evaluated, console_table

# Only the first tables are printed; the files hold all of them.
_SHOWN = 2
_MOST_ROWS = 40
# Without a terminal to update in place, a line is printed at most this often.
_LINE_EVERY_S = 10.0


class Telling(Redrawn):
    """The running part of an evaluation, shown on stderr."""

    def __init__(self) -> None:
        self._started_at = self._said_at = time.monotonic()
        self._status = Status("reading", console=errors) if errors.is_terminal else None
        super().__init__(self._status)

    def tell(self, line: str) -> None:
        """Show the part that begins."""
        now = time.monotonic()
        if self._status is not None:
            self._status.update(f"{line} ({duration(now - self._started_at)})")
        elif now - self._said_at > _LINE_EVERY_S:
            self._said_at = now
            errors.print(f"{duration(now - self._started_at)}: {line}")


def print_evaluated(found: Evaluated) -> None:
    """Print the first tables and the remarks on stdout."""
    for table in found.evaluation.tables[:_SHOWN]:
        head, *rows = console_table(table)
        grid = Grid(title=table.title, title_justify="left", box=None, pad_edge=False)
        for name in head:
            is_text = name == head[0]
            grid.add_column(name, justify="left" if is_text else "right", no_wrap=is_text)
        for row in rows[:_MOST_ROWS]:
            grid.add_row(*row)
        results.print(grid)
        if len(rows) > _MOST_ROWS:
            results.print(f"... and {len(rows) - _MOST_ROWS:,} rows more in {table.name}.csv")
        results.print("")
    for remark in found.evaluation.remarks:
        results.print(f"- {remark}")
