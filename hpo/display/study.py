"""A study on the terminal: how it stands, its best trial."""

from __future__ import annotations

from optuna.trial import FrozenTrial

from hpo.budget import Lease
from hpo.display.console import results
from hpo.samplers import RERUN_OF
from hpo.status import Lost, Status
from hpo.study import OpenStudy


def running(lease: Lease) -> str:
    value = "" if lease.value is None else f" {lease.value:.3g}"
    where = "asking" if lease.trial_number is None else f"trial {lease.trial_number}"
    return f"{lease.slot} {where} epoch {lease.epoch or 0}{value}"


def print_status(found: Status) -> None:
    """How a study stands, on stdout."""
    budget, best = found.budget, found.best
    lines = {
        "study": found.study,
        "trials": f"{budget.ended} of {budget.total} ended: {budget.complete} complete, "
        f"{budget.pruned} pruned, {budget.failed} failed; {budget.leased} running",
        "pruned": ", ".join(f"{n} {reason}" for reason, n in found.reasons.items()) or "none",
        "precision": _lost(found.lost),
        "best": f"{best.value:.6g} {found.metric} (trial {best.number})" if best else "-",
    }
    if any(found.gpu_seconds.values()):
        spent = (f"{name} {seconds:g}" for name, seconds in found.gpu_seconds.items())
        lines["GPU s"] = ", ".join(spent)
    for name, value in lines.items():
        results.print(f"{name:<10} {value}")
    for lease in found.leases:
        results.print(f"worker     {running(lease)} (last beat {lease.silent_s:.0f} s ago)")


def _lost(lost: Lost) -> str:
    if not lost.configurations:
        return f"{lost.precision} alone lost no configuration"
    rerun = f"; {lost.rerun} rerun in a wider one, {lost.recovered} of them not lost again"
    return (
        f"{lost.precision} alone lost {lost.configurations} "
        f"configuration{'s' if lost.configurations > 1 else ''}, finite in fp32"
        f"{rerun if lost.rerun else ''}"
    )


def print_trial(opened: OpenStudy, trial: FrozenTrial) -> None:
    """The best trial and its parameters, on stdout."""
    metric = opened.config.metric
    results.print(f"best trial  {trial.number} of study {opened.name}: {metric} {trial.value:.6g}")
    if RERUN_OF in trial.user_attrs:
        first, wider = trial.user_attrs[RERUN_OF], trial.user_attrs["precision"]
        results.print(f"  trained in {wider}: {opened.config.precision} lost it (trial {first})")
    width = max((len(name) for name in trial.params), default=0)
    for name, value in trial.params.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        results.print(f"  {name:<{width}}  {shown}")
