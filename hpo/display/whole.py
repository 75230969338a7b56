"""A whole study: how far its copy is and what it came to, what would be deleted with it."""

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
    """How far a copy is: one live line on a terminal, else a line now and then."""

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
        """Take how many rows are copied, the last ones of this table."""
        self._bar.update(self._task, completed=done, total=total, description=table)
        now = time.monotonic()
        is_due = now - self._said_at > _LINE_EVERY_S or done == total
        if is_due and not errors.is_terminal:
            self._said_at = now
            errors.print(f"{done:,} of {total:,} rows | {table} | {now - self._begun_at:.0f} s")


def print_copied(source: str, copied: Copied, *, url: str) -> None:
    """What a copy came to, and how to go on with it, on stdout."""
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
    """What would be deleted, on stderr."""
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
