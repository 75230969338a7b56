"""A training on the terminal: decisions at the start, progress of each seed, the result."""

from __future__ import annotations

import time

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpo.display.console import Redrawn, duration, errors, labelled, results
from hpo.refit.crew import TrainConfig
from hpo.refit.events import Remark, SeedEnded, SeedProgress, TrainEvent, TrainProgress
from hpo.refit.folder import TrainingFolder
from hpo.refit.recipe import Recipe
from hpo.refit.results import SeedResult, TrainingResult

# Without a terminal, each seed has a line per tenth of its epochs, at least `_HASTY_S` after its
# last one, and a line at least every `_QUIET_S`.
_HASTY_S, _QUIET_S = 2.0, 60.0
_TENTHS = 10


class TrainDisplay(Redrawn):
    """Lines of one training, and on a terminal a live table while it runs."""

    def __init__(self, recipe: Recipe, config: TrainConfig) -> None:
        self._recipe, self._config = recipe, config
        self._live = (
            Live(console=errors, auto_refresh=False, transient=True) if errors.is_terminal else None
        )
        super().__init__(self._live)
        self._began = time.monotonic()
        self._said: dict[str, tuple[int, float]] = {}
        self._has_news = False

    def begin(self) -> None:
        """Print each resolved decision and its reason on stderr."""
        recipe, slots = self._recipe, self._config.slots[: self._config.workers]
        own = recipe.config
        origin = f"{recipe.study_name}, trial {recipe.trial}" if recipe.study_name else "a file"
        studied = recipe.studied.get("value")
        if studied is not None:
            origin += f" ({own.metric} {studied:.4g} after {recipe.studied['epochs']} epochs)"
        options = "".join(f", {name} {value}" for name, value in own.options.items() if value)
        average = f"decay {recipe.ema_decay:g}" if recipe.ema_decay else "none"
        seeds = _seeds(recipe, self._config)
        count = f"{seeds} seed{'s' if seeds > 1 else ''}"
        count += (
            f" ({recipe.seeds} asked for; the folder holds more)" if seeds > recipe.seeds else ""
        )
        lines = {
            "training": origin,
            "objective": f"{own.objective}, size {own.size}{options}",
            "params": ", ".join(f"{name} {_short(v)}" for name, v in recipe.params.items()),
            "epochs": f"{recipe.epochs}, {count}",
            "precision": f"{recipe.precision} ({recipe.why})",
            "average": average,
            "workers": f"{len(slots)} ({', '.join(slot.name for slot in slots)})",
            "folder": str(self._config.folder),
        }
        for name, value in lines.items():
            errors.print(labelled(name, value))
        for note in recipe.notes:
            errors.print(labelled("note", note, style="yellow"))

    def show(self, event: TrainEvent) -> None:
        """Show an event of the training."""
        self._has_news = True
        if isinstance(event, TrainProgress):
            if self._live is not None:
                self._live.update(Group(_picture(event)), refresh=True)
            else:
                self._say_when_due(event.changed)
        elif isinstance(event, SeedEnded):
            errors.print(f"{event.label} {_ended(event.result, self._recipe.config.metric)}")
        elif isinstance(event, Remark):
            errors.print(Text(f"{event.label}: {event.text}", style="yellow"))
        else:
            errors.print("stopping; every seed writes its checkpoint")

    def _say_when_due(self, seed: SeedProgress) -> None:
        if seed.state != "training" or seed.value is None:
            return
        tenth = _TENTHS * seed.epoch // seed.epochs
        said, at = self._said.get(seed.name, (0, self._began))
        silent_s = time.monotonic() - at
        if (tenth > said and silent_s > _HASTY_S) or silent_s > _QUIET_S:
            self._said[seed.name] = (tenth, time.monotonic())
            left = "" if seed.left_s is None else f" | about {duration(seed.left_s)} left"
            value, best = _short(seed.value), _short(seed.best)
            errors.print(
                f"{seed.label} | epoch {seed.epoch}/{seed.epochs} | "
                f"{self._recipe.config.metric} {value} | best epoch {best}{left}"
            )

    def end(self, result: TrainingResult) -> None:
        """Print on stderr if the training was interrupted or was complete before."""
        if result.is_interrupted:
            errors.print("interrupted; the same command goes on from here")
        elif not self._has_news:
            errors.print("all of its seeds are trained; more --seeds add some, --force starts over")


def _seeds(recipe: Recipe, config: TrainConfig) -> int:
    """Return the number of seeds, those of an earlier call included."""
    return recipe.seeds if config.force else TrainingFolder(config.folder, recipe).seeds()


def _picture(progress: TrainProgress) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("seed", "device", "epoch", "step", "metric", "best epoch", "left"):
        table.add_column(column, justify="left" if column in ("seed", "device") else "right")
    for seed in progress.seeds:
        left = "" if seed.left_s is None else duration(seed.left_s)
        table.add_row(
            seed.label,
            seed.slot,
            f"{seed.epoch}/{seed.epochs}",
            f"{seed.step:,}" if seed.state == "training" else "",
            _short(seed.value),
            _short(seed.best),
            left if seed.state == "training" else seed.state,
        )
    return table


def _ended(result: SeedResult, metric: str) -> str:
    if result.outcome == "diverged":
        replay = f"; 'python -m hpo replay {result.file}' shows it again" if result.file else ""
        return (
            f"diverged after {duration(result.seconds)}, {result.reason}: {result.detail}{replay}"
        )
    return f"is trained: {metric} {_short(result.value)} in {duration(result.seconds)}"


def print_training(result: TrainingResult) -> None:
    """Print the result of a training on stdout."""
    for one in result.seeds:
        outcome = _short(one.value) if one.value is not None else f"diverged ({one.reason})"
        best = ", the best" if one.seed == result.best_seed and len(result.seeds) > 1 else ""
        results.print(labelled(f"seed {one.seed}", f"{outcome}{best}"))
    if result.mean is not None:
        spread = "" if result.std is None else f" ± {result.std:.2g} over seeds"
        results.print(labelled(result.metric, f"{result.mean:.4g}{spread}"))
    line = confirmation(result)
    if line is not None:
        results.print(line)
    if result.file is not None:
        results.print(labelled("weights", str(result.file)))
    results.print(labelled("folder", str(result.folder)))


def confirmation(result: TrainingResult) -> str | None:
    """Compare seed 0 in fp32 with seed 0 in the training's precision; None if one is missing."""
    other = result.confirmation
    zero = next((one for one in result.seeds if one.seed == 0), None)
    if other is None or zero is None:
        return None
    shown = [_short(v) if v is not None else "diverged" for v in (other.value, zero.value)]
    verb = {True: "confirms", False: "differs", None: "gives"}[result.is_confirmed]
    is_far = result.is_confirmed is False and None not in (other.value, zero.value)
    why = " (more than twice the deviation over seeds)" if is_far else ""
    return f"fp32 {verb}: {shown[0]} against {shown[1]}{why}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
