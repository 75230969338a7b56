"""What a run looks like on the terminal: decisions at the start, progress, the result.

Border: the hand of `cli`; formats what the fleet reports and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hpo import fleet
from hpo.budget import Lease
from hpo.database import mask
from hpo.evidence import Evidence
from hpo.replay import Replayed
from hpo.samplers import RERUN_OF
from hpo.status import Lost, Status
from hpo.study import OpenStudy

_errors = Console(stderr=True, highlight=False, soft_wrap=True)
_results = Console(highlight=False, soft_wrap=True)


class Display:
    """One run's lines, and its live line while it is on a terminal."""

    def __init__(self, opened: OpenStudy, config: fleet.FleetConfig) -> None:
        self._opened, self._config = opened, config
        self._live: Live | None = None
        self._ended = -1

    def begin(self, prepared: fleet.Prepared, *, asked: Mapping[str, Any], on_gpu: bool) -> None:
        """Say each resolved decision and its reason."""
        settings, budget = self._opened.config, prepared.tickets.count()
        state = "new" if prepared.is_new else f"resumed, {budget.ended} trials done"
        kind = "a GPU" if on_gpu else "no GPU"
        lines = {
            "study": f"{self._opened.name} ({state}, {budget.total} in all)",
            "storage": mask(prepared.url),
            "objective": f"{settings.objective}, size {settings.size}, space {settings.space}, "
            f"{settings.epochs} epochs a trial"
            + "".join(f", {name} {value}" for name, value in settings.options.items()),
            "precision": f"{settings.precision} ("
            + (
                "asked for"
                if "precision" in asked
                else f"auto: {kind}"
                if prepared.is_new
                else "the study's"
            )
            + ")",
            "search": f"{settings.sampler}, pruner {settings.pruner}, seed {settings.seed}",
            "workers": f"{len(self._config.slots)} ("
            + ", ".join(slot.name for slot in self._config.slots)
            + ")",
            "logs": str(self._config.logs),
        }
        if len(self._config.slots) > 1:
            lines["search"] += "; with several workers a trial is reproducible, the study is not"
        else:
            lines["search"] += "; with one worker the same seed gives the same study"
        for name, value in lines.items():
            _errors.print(f"[bold]{name:<10}[/bold] {value}")
        for note in prepared.notes:
            _errors.print(f"[yellow]note[/yellow]       {note}")

    def __enter__(self) -> Display:
        if _errors.is_terminal:
            self._bar = Progress(
                TextColumn("trials"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("best {task.description}"),
                console=_errors,
            )
            self._task = self._bar.add_task("-", total=None)
            self._live = Live(self._bar, console=_errors, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: fleet.Event) -> None:
        """Take an event of the fleet."""
        if isinstance(event, fleet.Progress):
            self._show_progress(event)
        elif isinstance(event, fleet.WorkerEnded):
            _errors.print(
                f"[yellow]worker {event.slot} ended with code {event.code}; another takes over "
                f"its trial (log: {event.log})[/yellow]"
            )
        else:
            _errors.print(f"stopping ({event.reason}); running trials are kept for the next run")

    def _show_progress(self, progress: fleet.Progress) -> None:
        budget = progress.budget
        best = "-"
        if progress.best is not None:
            best = f"{progress.best.value:.4g} (trial {progress.best.number})"
        counts = f"{budget.complete} complete, {budget.pruned} pruned, {budget.failed} failed"
        if self._live is not None:
            self._bar.update(
                self._task, total=budget.total, completed=budget.ended, description=best
            )
            running = [_running(lease) for lease in progress.leases]
            self._live.update(Group(self._bar, Text(" | ".join([counts, *running]))))
        elif budget.ended != self._ended:
            _errors.print(
                f"{budget.ended}/{budget.total} trials | {counts} | best {best} | "
                f"{progress.seconds:.0f} s"
            )
        self._ended = budget.ended

    def end(self, result: fleet.RunResult, *, url: str, is_embedded: bool) -> None:
        """Say what the run came to, and how to look at it."""
        budget, name = result.budget, self._opened.name
        _errors.print(
            f"{budget.ended} of {budget.total} trials done in {result.seconds:.0f} s: "
            f"{budget.complete} complete, {budget.pruned} pruned, {budget.failed} failed"
        )
        if result.diverged:
            counts = Counter(result.diverged.values()).most_common()
            _errors.print(
                f"diverged: {', '.join(f'{n} {reason}' for reason, n in counts)}; "
                f"'python -m hpo replay {next(iter(result.diverged))}' shows one of them again"
            )
        if result.best is None:
            _errors.print("no trial is complete, so there is no best one")
        else:
            print_trial(self._opened, result.best)
            self._print_comparison(result)
            checkpoint = self._config.checkpoints / f"trial_{result.best.number:05d}.pt"
            if checkpoint.exists():
                _results.print(f"checkpoint  {checkpoint}")
        _results.print(f"storage     {mask(url)}")
        _results.print(f"study       {name}")
        where = "" if is_embedded else "HPO_STORAGE=<the storage's URL> "
        _results.print(f"look at it  {where}python -m hpo dashboard")
        if result.is_interrupted:
            _errors.print("interrupted; the same command goes on from here")

    def _print_comparison(self, result: fleet.RunResult) -> None:
        metric = self._opened.config.metric
        others = dict(result.references)
        if result.default_value is not None:
            others["default configuration (the first trial)"] = result.default_value
        for name, value in others.items():
            _results.print(f"{metric} of {name}: {value:.4g}")


def _running(lease: Lease) -> str:
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
        _results.print(f"{name:<10} {value}")
    for lease in found.leases:
        _results.print(f"worker     {_running(lease)} (last beat {lease.silent_s:.0f} s ago)")


def _lost(lost: Lost) -> str:
    if not lost.configurations:
        return f"{lost.precision} alone lost no configuration"
    rerun = f"; {lost.rerun} rerun in a wider one, {lost.recovered} of them not lost again"
    return (
        f"{lost.precision} alone lost {lost.configurations} "
        f"configuration{'s' if lost.configurations > 1 else ''}, finite in fp32"
        f"{rerun if lost.rerun else ''}"
    )


def print_replayed(found: Replayed, *, step: int | None) -> None:
    """A saved step judged again, on stdout."""
    evidence = found.evidence
    _results.print(f"trial      {found.about['trial']}, pruned as {found.recorded}")
    whose = f"of step {found.step}" if step is None else f"of step {step}, drawn anew"
    _results.print(f"step       {found.step}, {found.precision}; the batch {whose}")
    same = ", as recorded" if found.reason == found.recorded else ""
    _results.print(f"verdict    [bold]{found.reason or 'benign'}[/bold]{same}")
    if found.reason is not None:
        _results.print(f"           {escape(found.detail)}")
    if evidence.passes:
        _results.print(_table_of_passes(evidence))
    if evidence.spectra:
        _results.print(_table_of_spectra(evidence))
    if evidence.scales:
        last = ", ".join(f"{s}: {scale:g} ({n})" for s, scale, n in evidence.scales[-8:])
        _results.print(f"scale      by step, with the steps withheld by then: {last}")


def _table_of_passes(evidence: Evidence) -> Table:
    table = Table("precision", "term", "value", "gradient norm by group", box=None)
    for precision, look in evidence.passes.items():
        if look.error is not None:
            table.add_row(precision, "-", "-", escape(look.error))
        for term, value in look.terms.items():
            norms = look.grad_norms.get(term, {})
            shown = ", ".join(f"{group} {norm:.4g}" for group, norm in norms.items())
            table.add_row(precision, escape(term), f"{value:.6g}", escape(shown) or "no gradient")
    return table


def _table_of_spectra(evidence: Evidence) -> Table:
    table = Table(
        *("decomposition", "at", "shape", "matrices", "condition", "smallest gap", "ties"),
        box=None,
    )
    for spectrum in evidence.spectra:
        table.add_row(
            spectrum.operation,
            spectrum.where,
            "×".join(map(str, spectrum.shape)),
            str(spectrum.matrices),
            f"{spectrum.condition:.3g}",
            f"{spectrum.smallest_gap:.3g}",
            str(spectrum.ties),
        )
    return table


def print_trial(opened: OpenStudy, trial: FrozenTrial) -> None:
    """The best trial and its parameters, on stdout."""
    metric = opened.config.metric
    _results.print(f"best trial  {trial.number} of study {opened.name}: {metric} {trial.value:.6g}")
    if RERUN_OF in trial.user_attrs:
        first, wider = trial.user_attrs[RERUN_OF], trial.user_attrs["precision"]
        _results.print(f"  trained in {wider}: {opened.config.precision} lost it (trial {first})")
    width = max((len(name) for name in trial.params), default=0)
    for name, value in trial.params.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        _results.print(f"  {name:<{width}}  {shown}")
