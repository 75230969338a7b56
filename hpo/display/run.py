"""What a run looks like: decisions at the start, progress, the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from hpo import fleet
from hpo.database import mask
from hpo.display.console import errors, results
from hpo.display.study import print_trial, running
from hpo.study import OpenStudy


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
            errors.print(f"[bold]{name:<10}[/bold] {value}")
        for note in prepared.notes:
            errors.print(f"[yellow]note[/yellow]       {note}")

    def __enter__(self) -> Display:
        if errors.is_terminal:
            self._bar = Progress(
                TextColumn("trials"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("best {task.description}"),
                console=errors,
            )
            self._task = self._bar.add_task("-", total=None)
            self._live = Live(self._bar, console=errors, transient=True)
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
            errors.print(
                f"[yellow]worker {event.slot} ended with code {event.code}; another takes over "
                f"its trial (log: {event.log})[/yellow]"
            )
        else:
            errors.print(f"stopping ({event.reason}); running trials are kept for the next run")

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
            running = [running(lease) for lease in progress.leases]
            self._live.update(Group(self._bar, Text(" | ".join([counts, *running]))))
        elif budget.ended != self._ended:
            errors.print(
                f"{budget.ended}/{budget.total} trials | {counts} | best {best} | "
                f"{progress.seconds:.0f} s"
            )
        self._ended = budget.ended

    def end(self, result: fleet.RunResult, *, url: str, is_embedded: bool) -> None:
        """Say what the run came to, and how to look at it."""
        budget, name = result.budget, self._opened.name
        errors.print(
            f"{budget.ended} of {budget.total} trials done in {result.seconds:.0f} s: "
            f"{budget.complete} complete, {budget.pruned} pruned, {budget.failed} failed"
        )
        if result.diverged:
            counts = Counter(result.diverged.values()).most_common()
            errors.print(
                f"diverged: {', '.join(f'{n} {reason}' for reason, n in counts)}; "
                f"'python -m hpo replay {next(iter(result.diverged))}' shows one of them again"
            )
        if result.best is None:
            errors.print("no trial is complete, so there is no best one")
        else:
            print_trial(self._opened, result.best)
            self._print_comparison(result)
            checkpoint = self._config.checkpoints / f"trial_{result.best.number:05d}.pt"
            if checkpoint.exists():
                results.print(f"checkpoint  {checkpoint}")
        results.print(f"storage     {mask(url)}")
        results.print(f"study       {name}")
        where = "" if is_embedded else "HPO_STORAGE=<the storage's URL> "
        results.print(f"look at it  {where}python -m hpo dashboard")
        if result.is_interrupted:
            errors.print("interrupted; the same command goes on from here")

    def _print_comparison(self, result: fleet.RunResult) -> None:
        metric = self._opened.config.metric
        others = dict(result.references)
        if result.default_value is not None:
            others["default configuration (the first trial)"] = result.default_value
        for name, value in others.items():
            results.print(f"{metric} of {name}: {value:.4g}")
