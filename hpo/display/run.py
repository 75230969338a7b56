"""A run on the terminal: decisions at the start, progress, the result."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from optuna.trial import FrozenTrial
from rich.live import Live
from rich.text import Text

from hpo.display.console import Redrawn, duration, errors, labelled, results
from hpo.display.progress import best_in_short, lease_figures, picture, time_left, waiting
from hpo.display.study import counts, print_trial, running
from hpo.display.terminal import refuse_hung_up
from hpo.engine.checkpoint_files import file_of
from hpo.fleet.events import (
    BudgetSpent,
    Connected,
    Event,
    Finishing,
    Grown,
    Looking,
    Progress,
    RunResult,
    Starting,
    Waiting,
    WorkerEnded,
    WorkerLeft,
)
from hpo.launch.launcher import LOST
from hpo.study.outcomes import attempt_of, outcome
from hpo.tickets.spent import Spent

# Without a terminal a line is printed at least this often, so that a log shows a run at work.
_QUIET_S = 60.0
# The hours of a study are worth a word from here on.
_COSTS_H = 0.1


@dataclass(frozen=True, kw_only=True)
class Level:
    """Amount and form of the output on stderr."""

    is_quiet: bool = False
    is_verbose: bool = False
    is_json: bool = False

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> Level:
        return cls(is_quiet=flags["quiet"], is_verbose=flags["verbose"], is_json=flags["log_json"])


class Display(Redrawn):
    """Lines of one run, and on a terminal a live table while it goes on."""

    def __init__(self, level: Level) -> None:
        self._level = level
        is_redrawn = self._is_plain and errors.is_terminal
        self._live = (
            Live(console=errors, transient=True, refresh_per_second=4) if is_redrawn else None
        )
        super().__init__(self._live)
        self._started: Starting
        self._ended = -1
        self._said_at = 0.0
        self._has_estimate = False
        self._avoided: set[str] = set()
        self._paused: str | None = None

    @property
    def _is_plain(self) -> bool:
        return not (self._level.is_quiet or self._level.is_json)

    def say(self, line: str | Text) -> None:
        """Print a line for people on stderr, unless quiet or in JSON."""
        if self._is_plain:
            errors.print(line)

    def _log(self, event: str, **values: Any) -> None:
        """Print an event as a line of JSON on stderr, if so configured."""
        if self._level.is_json:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            click.echo(json.dumps({"at": now, "event": event, **values}), err=True)

    def _begin(self, start: Starting) -> None:
        """Print each resolved decision and its reason."""
        self._started = start
        config, budget, slots = start.opened.config, start.budget, start.slots
        on_gpu = slots[0].device == "cuda"
        is_new, smaller, asked = start.is_new, start.smaller_sizes, start.asked
        state = "new" if is_new else f"resumed, {budget.ended} trials done"
        machine = "a GPU" if on_gpu else "no GPU"
        chosen = f"auto: {machine}" if is_new else "the study's"
        reason = {name: "asked for" if name in asked else chosen for name in ("size", "precision")}
        lines = {
            "study": f"{start.opened.name} ({state}, {budget.total} in all)",
            "objective": f"{config.objective}, space {config.space}, "
            f"{config.epochs_per_trial} epochs a trial"
            + "".join(
                f", {name} {value}"
                for name, value in config.options.items()
                if value and name not in start.chosen
            ),
            "size": f"{config.size} ({reason['size']})"
            + (f"; --size {' or '.join(smaller)} takes less time" if on_gpu and smaller else ""),
            "precision": f"{config.precision} ({reason['precision']})",
            **start.chosen,
            "search": f"{config.sampler}, pruner {config.pruner}, seed {config.seed}; "
            + (
                "with several workers a trial is reproducible, the study is not"
                if len(slots) > 1
                else "with one worker the same seed gives the same study"
            ),
            "workers": f"{len(slots)} ({', '.join(slot.name for slot in slots)})",
            "logs": str(start.logs),
        }
        own = [f"{name}={value}" for name, value in config.fixed.items()]
        own += [f"{name} in {_range(value)}" for name, value in config.ranges.items()]
        if own:
            lines["own space"] = "; ".join(own)
        for name, value in lines.items():
            self.say(labelled(name, value))
        for note in start.notes:
            self.say(labelled("note", note, style="yellow"))
        if budget.ended == budget.total:
            self.say("all of its trials are done; a larger --n_trials adds some")
        self._log("start", storage=start.storage, **lines, notes=list(start.notes))

    def show(self, event: Event) -> None:
        """Show an event of the run."""
        if isinstance(event, Connected):
            self.say(labelled("storage", event.storage))
        elif isinstance(event, Waiting):
            self.say(labelled("note", event.what, style="yellow"))
            self._log("waiting", what=event.what)
        elif isinstance(event, Looking):
            self.say(labelled("check", f"building the default configuration of {event.objective}"))
            self._log("look", objective=event.objective)
        elif isinstance(event, Starting):
            self._begin(event)
        elif isinstance(event, Progress):
            self._show_progress(event)
        elif isinstance(event, WorkerEnded):
            then = (
                "no other is started there" if event.is_retired else "another takes over its trial"
            )
            text = f"worker {event.slot} {ended(event)}; {then} (log: {event.log})"
            self.say(Text(text, style="yellow"))
            self._log("worker_ended", **{**vars(event), "log": str(event.log)})
        elif isinstance(event, WorkerLeft):
            self.say(f"worker {event.slot} has left as it was asked to; its slot stays empty")
            self._log("worker_left", slot=event.slot)
        elif isinstance(event, Grown):
            some = "a trial was" if event.added == 1 else f"{event.added} trials were"
            self.say(f"{some} enqueued by another program: {event.total} in all now")
            self._log("grown", **vars(event))
        elif isinstance(event, BudgetSpent):
            self.say(Text(f"{event.sentence}; running trials end first", style="yellow"))
            self._log("budget_spent", detail=event.sentence)
        elif isinstance(event, Finishing):
            self.say(
                "all trials are done; what other methods reach is still being found, to stand "
                "beside the best (Ctrl-C leaves that out)"
            )
            self._log("finishing")
        else:
            self.say(f"stopping ({event.reason}); running trials are kept for the next run")
            self._log("stopping", reason=event.reason)

    def _show_progress(self, progress: Progress) -> None:
        for trial in progress.ended:
            self._show_ended(trial)
        self._show_pause(progress.paused)
        self._show_estimate(progress)
        self._show_avoided(progress.hopeless)
        budget = progress.budget
        is_due = time.monotonic() - self._said_at > _QUIET_S
        if self._live is not None:
            # Another thread writes it, and would end alone.
            refuse_hung_up()
            self._live.update(picture(progress))
        elif budget.ended != self._ended or (is_due and (progress.leases or progress.waiting)):
            self._said_at = time.monotonic()
            parts = [
                f"{budget.ended}/{budget.total} trials",
                counts(budget, progress.reasons),
                f"best {best_in_short(progress.best)}",
                time_left(progress),
                *progress.spent.limited(),
            ]
            if progress.waiting:
                parts.append(waiting(progress))
            if budget.ended == self._ended:
                parts += [running(lease) for lease in progress.leases]
            self.say(" | ".join(parts))
            best = progress.best
            self._log(
                "progress",
                **vars(budget),
                prune_reasons=dict(progress.reasons),
                workers=progress.workers,
                waiting=progress.waiting,
                best=best and {"trial": best.number, "value": best.value},
                running=[lease_figures(lease) for lease in progress.leases],
                seconds=round(progress.seconds, 1),
                left_s=progress.left_s and round(progress.left_s, 1),
                spent=progress.spent.flat(),
            )
        self._ended = budget.ended

    def _show_ended(self, trial: FrozenTrial) -> None:
        detail = str(trial.user_attrs.get("prune_detail", "-"))
        how = outcome(trial)
        self._log("trial", number=trial.number, outcome=how, value=trial.value, detail=detail)
        if self._level.is_verbose:
            params = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
            value = f" {trial.value:.6g}" if trial.value is not None else ""
            why = f" ({detail})" if detail != "-" else ""
            self.say(f"trial {trial.number} {how}{value}{why}: {params}")

    def _show_avoided(self, hopeless: Mapping[str, str]) -> None:
        """Print once for each value with which every trial fails that it is avoided."""
        for value, sentence in hopeless.items():
            if value not in self._avoided:
                self._avoided.add(value)
                self.say(labelled("note", f"{sentence}: no longer proposed", style="yellow"))
                self._log("hopeless", detail=sentence)

    def _show_pause(self, paused: str | None) -> None:
        """Print once that the study is paused, and that it goes on."""
        if paused == self._paused:
            return
        self._paused = paused
        text = paused or "the study goes on after its pause"
        self.say(labelled("note", text, style="yellow"))
        self._log("resumed" if paused is None else "paused", detail=text)

    def _show_estimate(self, progress: Progress) -> None:
        """Print once how long trial and study will take, after the first epochs."""
        steps = [lease.steps for lease in progress.leases if lease.epoch and lease.steps]
        if self._has_estimate or not steps or not progress.trial_s or not progress.left_s:
            return
        self._has_estimate = True
        workers = len(self._started.slots)
        text = (
            f"a whole trial is {steps[0]:,} steps, about {duration(progress.trial_s)}; the study "
            f"{duration(progress.left_s)} on {workers} worker{'s' if workers > 1 else ''}, less "
            "where trials are pruned"
        )
        self.say(labelled("estimate", text))

    def note_end(self, result: RunResult) -> None:
        """Print the outcome of the run on stderr."""
        budget = result.budget
        self.say(
            f"{budget.ended} of {budget.total} trials done in {duration(result.seconds)}: "
            f"{counts(budget, result.reasons)}{_cost(result.spent)}"
        )
        if result.spent.reached is not None and budget.open:
            self.say(result.spent.sentence(left=budget.open))
        if budget.failed:
            self.say(
                f"{budget.failed} trials failed: their attributes prune_detail and traceback say "
                f"why, and the logs in {self._started.logs}"
            )
        for sentence in result.hopeless:
            self.say(f"{sentence}: the search avoids that value")
        if result.diverged:
            self.say(
                f"'python -m hpo replay {next(iter(result.diverged))}' shows again why that trial "
                "diverged"
            )
        if result.best is None:
            self.say("no trial is complete, so there is no best one")
        if result.left_out is not None:
            self.say(result.left_out)
        if result.is_interrupted:
            self.say("interrupted; the same command goes on from here")
        self._log("end", **result.flat())

    def end(self, result: RunResult, *, is_embedded: bool) -> None:
        """Print the outcome on stderr, and the best trial and next commands on stdout."""
        self.note_end(result)
        if result.best is not None:
            print_trial(self._started.opened, result.best)
            metric = self._started.opened.config.metric
            others = dict(result.references)
            if result.default_value is not None:
                others["default configuration (the first trial)"] = result.default_value
            for name, value in others.items():
                results.print(f"{metric} of {name}: {value:.4g}")
            attempt = attempt_of(result.best)
            checkpoint = file_of(self._started.checkpoints, result.best.number, attempt)
            if checkpoint.exists():
                results.print(f"checkpoint  {checkpoint}")
        results.print(f"storage     {self._started.storage}")
        results.print(f"study       {self._started.opened.name}")
        where = "" if is_embedded else "HPO_STORAGE=<the storage's URL> "
        results.print(f"look at it  {where}python -m hpo dashboard")


def _cost(spent: Spent) -> str:
    """What a study has taken, as the end of a sentence; nothing of minutes without a limit."""
    if not spent.limited() and max(spent.hours, spent.gpu_hours) < _COSTS_H:
        return ""
    return f"; {', '.join(spent.parts())} in all"


def ended(event: WorkerEnded) -> str:
    """How a worker ended, in words."""
    if event.code < 0:
        return f"was killed by {signal.Signals(-event.code).name}"
    if event.code == LOST:
        return f"was ended by its trial ({event.reason.rpartition(' | ')[2]})"
    return f"ended with code {event.code}"


def _range(bounds: Any) -> str:
    low, high, log = bounds
    return f"{low:g} to {high:g}{', log' if log else ''}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
