"""A copy of a study on the terminal: progress, then the result."""

from __future__ import annotations

import shlex
import time

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from hpo.database.connection import mask
from hpo.display.console import Redrawn, errors, results
from hpo.study.copy import Copied

_LINE_EVERY_S = 5.0


class CopyProgress(Redrawn):
    """Progress of a copy: one live line on a terminal, else a line every five seconds."""

    def __init__(self) -> None:
        self._begun_at = self._said_at = time.monotonic()
        self._bar = Progress(
            TextColumn("rows"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        )
        self._task = self._bar.add_task("", total=0)
        super().__init__(self._bar)

    def show(self, table: str, done: int, total: int) -> None:
        """Show how many of all rows are copied, and the table being copied."""
        self._bar.update(self._task, completed=done, total=total, description=table)
        now = time.monotonic()
        is_due = now - self._said_at > _LINE_EVERY_S or done == total
        if is_due and not errors.is_terminal:
            self._said_at = now
            errors.print(f"{done:,} of {total:,} rows | {table} | {now - self._begun_at:.0f} s")


def print_copied(source: str, copied: Copied, *, url: str) -> None:
    """Print the result of a copy, and the command that continues the study, on stdout."""
    lines = {
        "copied": f"{copied.rows:,} rows of study {source}",
        "study": copied.name,
        "storage": mask(url),
        "go on": f"HPO_STORAGE=<the storage's URL> python -m hpo --study_name "
        f"{shlex.quote(copied.name)} --n_trials {max(1, copied.total)}",
    }
    if copied.checkpoints is not None:
        lines["checkpoints"] = str(copied.checkpoints)
    for name, value in lines.items():
        results.print(f"{name:<11} {value}")
