"""A whole study on the terminal: progress and result of a copy, content before a deletion."""

from __future__ import annotations

import shlex
import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from hpo.database.connection import mask
from hpo.display.console import errors, results
from hpo.study.copy import Copied
from hpo.study.deletion import Content

_LINE_EVERY_S = 5.0


class CopyProgress:
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

    def __enter__(self) -> CopyProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

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


def print_content(study: str, content: Content) -> None:
    """Print on stderr the content that would be deleted."""
    rows = content.rows
    checkpoints_mb, artifacts_mb = (
        sum(sizes) / 1e6
        for sizes in ((path.stat().st_size for path in content.checkpoints), content.artifacts)
    )
    lines = {
        "study": study,
        "trials": f"{rows['trials']:,}",
        "records": f"{rows['metrics']:,} of epochs, {rows['divergences']:,} of divergences",
        "artifacts": f"{len(content.artifacts):,} ({artifacts_mb:.1f} MB)",
        "files": f"{len(content.checkpoints):,} checkpoints ({checkpoints_mb:.1f} MB), "
        f"{len(content.logs):,} logs, on this host",
    }
    for name, value in lines.items():
        errors.print(f"{name:<10} {value}")
