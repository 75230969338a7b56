"""A study on the terminal: its status and its best trial; the list of all studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial
from rich.table import Table

from hpo.display.console import duration, results
from hpo.search.samplers import RERUN_OF
from hpo.study.overview import StudyLine
from hpo.study.status import Lost, Status
from hpo.study.study import OpenStudy
from hpo.tickets.budget import Budget
from hpo.tickets.leases import Lease

# A part of a training that takes longer is shown with its time: it may hang.
_STILL_S = 10.0


def running(lease: Lease) -> str:
    if lease.trial_number is None:
        return f"{lease.slot} asking"
    steps = f" step {lease.step or 0}/{lease.steps}" if lease.steps else ""
    value = "" if lease.value is None else f" {lease.value:.4g}"
    epochs = f"{lease.epoch or 0}/{lease.epochs or '?'}"
    still = ""
    if lease.phase and (lease.phase_s or 0) > _STILL_S:
        still = f", {lease.phase} since {duration(lease.phase_s or 0)}"
    return f"{lease.slot} trial {lease.trial_number} epoch {epochs}{steps}{value}{still}"


def counts(budget: Budget, reasons: Mapping[str, int]) -> str:
    """Count trials by state and prune reason: '5 complete, 6 pruned (4 pruner, 2 oom)'."""
    why = f" ({', '.join(f'{n} {reason}' for reason, n in reasons.items())})" if reasons else ""
    return f"{budget.complete} complete, {budget.pruned} pruned{why}, {budget.failed} failed"


def status_lines(found: Status) -> list[str]:
    """Return the lines of a study's status."""
    budget, best = found.budget, found.best
    copied = f", a copy of '{found.copy_of}' without a budget of its own before 'run'"
    lines = {
        "study": found.study + (copied if found.copy_of is not None else ""),
        "trials": f"{budget.ended} of {budget.total} ended: {counts(budget, found.reasons)}; "
        f"{budget.leased} running",
        "precision": _lost(found.lost),
        "spent": ", ".join(found.spent.parts()),
        "best": f"{best.value:.6g} {found.metric} (trial {best.number})" if best else "-",
    }
    if found.paused is not None:
        lines["paused"] = found.paused
    if found.left_out is not None:
        lines["note"] = found.left_out
    if found.failure is not None:
        lines["failed"] = found.failure
    if found.hopeless:
        lines["avoided"] = "; ".join(found.hopeless)
    if any(found.gpu_seconds.values()):
        spent = (f"{name} {seconds:g}" for name, seconds in found.gpu_seconds.items())
        lines["GPU s"] = ", ".join(spent)
    return [
        *(f"{name:<10} {value}" for name, value in lines.items()),
        *(
            f"worker     {running(lease)} (last beat {lease.silent_s:.0f} s ago)"
            for lease in found.leases
        ),
    ]


def print_status(found: Status) -> None:
    """Print a study's status on stdout."""
    for line in status_lines(found):
        results.print(line)


def print_overview(lines: Sequence[StudyLine]) -> None:
    """Print a table of the studies of a database on stdout."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("study", "objective", "trials", "running", "best", "metric", "started"):
        table.add_column(column, justify="right" if column in ("running", "best") else "left")
    for line in lines:
        budget = line.budget
        table.add_row(
            line.name + (f" (copy of {line.copy_of})" if line.copy_of is not None else ""),
            Path(line.objective).name if line.objective else "-",
            f"{budget.ended} of {budget.total}"
            + (f", {budget.failed} failed" * bool(budget.failed)),
            str(budget.leased),
            "-" if line.best is None else f"{line.best:.6g}",
            line.metric or "-",
            line.started.strftime("%Y-%m-%d %H:%M") if line.started else "-",
        )
    results.print(table)


def _lost(lost: Lost) -> str:
    if not lost.configurations:
        return f"{lost.precision} alone lost no configuration"
    rerun = f"; {lost.rerun} rerun in a wider one, {lost.recovered} of them not lost again"
    return (
        f"{lost.precision} alone lost {lost.configurations} "
        f"configuration{'s' if lost.configurations > 1 else ''}, finite in fp32"
        f"{rerun if lost.rerun else ''}"
    )


def print_figures(figures: Mapping[str, float | str]) -> None:
    """Print the figures of a trial's last validation on stdout."""
    if figures:
        results.print("last validation")
    width = max((len(name) for name in figures), default=0)
    for name, value in figures.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        results.print(f"  {name:<{width}}  {shown}")


def print_trial(opened: OpenStudy, trial: FrozenTrial) -> None:
    """Print the best trial and its parameters on stdout."""
    metric = opened.config.metric
    results.print(f"best trial  {trial.number} of study {opened.name}: {metric} {trial.value:.6g}")
    if RERUN_OF in trial.user_attrs:
        first, wider = trial.user_attrs[RERUN_OF], trial.user_attrs["precision"]
        results.print(f"  trained in {wider}: {opened.config.precision} lost it (trial {first})")
    width = max((len(name) for name in trial.params), default=0)
    for name, value in trial.params.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        results.print(f"  {name:<{width}}  {shown}")
