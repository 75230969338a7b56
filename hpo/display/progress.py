"""The live picture of a run, and the parts of its progress line."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.display.console import duration
from hpo.display.study import counts
from hpo.fleet.events import Progress


def picture(progress: Progress) -> Group:
    """Lay out the live view: progress of the study, and a line for each running trial."""
    budget = progress.budget
    head = Table.grid(padding=(0, 1))
    head.add_row(
        f"{budget.ended}/{budget.total} trials",
        ProgressBar(total=max(1, budget.total), completed=budget.ended, width=24),
        time_left(progress),
        f"best {best_in_short(progress.best)}",
        *progress.spent.limited(),
    )
    head_and_counts: list[RenderableType] = [head, Text(counts(budget, progress.reasons))]
    if progress.waiting:
        head_and_counts.append(Text(waiting(progress), style="dim"))
    if not progress.leases:
        starting = "" if progress.waiting == progress.workers else "workers are starting"
        return Group(*head_and_counts, Text(starting, style="dim"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("device", "trial", "epoch", "step", "metric", "time"):
        table.add_column(column, justify="left" if column == "device" else "right")
    for lease in progress.leases:
        table.add_row(
            lease.slot,
            "asking" if lease.trial_number is None else str(lease.trial_number),
            f"{lease.epoch or 0}/{lease.epochs or '?'}",
            f"{lease.step or 0:,}/{lease.steps:,}" if lease.steps else "-",
            "-" if lease.value is None else f"{lease.value:.4g}",
            duration(lease.held_s),
        )
    return Group(*head_and_counts, table)


def waiting(progress: Progress) -> str:
    """How many workers a cluster has no place for yet, in words."""
    runs = progress.workers - progress.waiting
    return (
        f"{runs} of {progress.workers} workers run, {progress.waiting} "
        f"{'wait' if progress.waiting > 1 else 'waits'} for the cluster"
    )


def time_left(progress: Progress) -> str:
    left_s = progress.left_s
    left = f", about {duration(left_s)} left" if left_s and left_s >= 1 else ""
    return f"{duration(progress.seconds)}{left}"


def lease_figures(lease: Any) -> dict[str, Any]:
    names = ("slot", "trial_number", "epoch", "epochs", "step", "steps", "value")
    return {name: getattr(lease, name) for name in names}


def best_in_short(trial: FrozenTrial | None) -> str:
    return "-" if trial is None else f"{trial.value:.4g} (trial {trial.number})"
