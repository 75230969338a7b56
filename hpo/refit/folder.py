"""The folder of a training: results and states of its seeds, table, picture and summary.

    seed_0.pt ...        the finished seeds, as `weights` reads them
    seed_0_fp32.pt       seed 0 in fp32, to confirm another precision
    seed_1.step.pt       where a seed diverged: the step, for `replay`
    training.json        the summary;  training.csv  a row per seed and epoch;  curves.png
    .state/              each seed's checkpoint, result and log: an interrupted training resumes

Border: files in, files out, each written whole or not at all. `crew` trains.
"""

from __future__ import annotations

import fcntl
import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpo import files
from hpo.errors import ConfigurationError
from hpo.files import csv_text
from hpo.refit.curves import Curve, picture
from hpo.refit.recipe import Recipe
from hpo.refit.results import SeedResult, TrainingResult
from hpo.refit.weights import SUMMARY
from hpo.study.objective import differing

_VERSION = 1
# Seed 0 is trained once more in fp32 where the training's precision is another.
CONFIRMATION = "seed_0_fp32"
_TABLE, _PICTURE = "training.csv", "curves.png"
_SEED = re.compile(rf"seed_\d+|{CONFIRMATION}")
_RESULT = re.compile(rf"({_SEED.pattern})(\.step)?\.pt|{re.escape(_TABLE)}|{re.escape(_PICTURE)}")


class TrainingFolder:
    """The files of one training."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self._recipe = path, recipe
        self.state = path / ".state"

    @contextmanager
    def held(self, *, force: bool) -> Iterator[None]:
        """Make the folder, lock it against other processes, and check that it is of this recipe.

        Other files that the user keeps in the folder stay as they are.

        Args:
            force: Start over if it holds a training, this one or another.

        Raises:
            ConfigurationError: The folder cannot be written, is in use, or holds other results.
        """
        try:
            self._refuse_foreign_results()
            self.state.mkdir(parents=True, exist_ok=True)
            lock = (self.state / "lock").open("w")
        except OSError as error:
            raise ConfigurationError(
                f"the folder '{self.path}' cannot be written: {error.strerror or error}; name "
                "another one (--out)"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(
                    f"another 'train' is at work in '{self.path}'; wait for it, or name another "
                    "folder (--out)"
                ) from error
            except OSError:
                # The file system has no locks; two at once would train everything twice.
                pass
            self._remove_unfinished()
            if force:
                self._clear()
            self._refuse_another()
            yield

    def _refuse_foreign_results(self) -> None:
        """Refuse a folder that holds files named like results, but no training."""
        if not self.path.is_dir() or self.state.exists() or (self.path / SUMMARY).exists():
            return
        found = sorted(file.name for file in self.path.iterdir() if _RESULT.fullmatch(file.name))
        if found:
            raise ConfigurationError(
                f"the folder '{self.path}' holds '{found[0]}' and no training that it is of, and "
                "would have it replaced; name another folder (--out)"
            )

    def _remove_unfinished(self) -> None:
        """Remove partial files of processes that were killed while writing."""
        for folder in (self.path, self.state):
            for file in folder.iterdir():
                name = files.target_name(file.name)
                if name and (name == SUMMARY or _RESULT.fullmatch(name) or _is_state(name)):
                    file.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove the files of an earlier training, and no others."""
        states = [file for file in self.state.iterdir() if _is_state(file.name)]
        names = {file.stem for file in states} | set(self._names_before())
        results = [f"{name}{ending}" for name in names for ending in (".pt", ".step.pt")]
        for file in (*states, *(self.path / n for n in (*results, SUMMARY, _TABLE, _PICTURE))):
            file.unlink(missing_ok=True)

    def _names_before(self) -> list[str]:
        """Return the seeds of the earlier training, by file name; none without its summary."""
        try:
            found = self._summary()
            return [] if found is None else [CONFIRMATION, *map(_name, range(found["asked_seeds"]))]
        except (ConfigurationError, TypeError):
            return []

    def _refuse_another(self) -> None:
        found = self._summary()
        if found is None:
            return
        before, now = found["asked"], json.loads(json.dumps(self._recipe.asked()))
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if names:
            changes = "; ".join(
                f"{n} {_shown(before.get(n))} (now {_shown(now.get(n))})" for n in names
            )
            raise ConfigurationError(
                f"the training in '{self.path}' is of {changes}: leave that as it was to go on "
                "with it, name another folder with --out, or write --force to start over"
            )

    def of_other_source(self) -> dict[str, list[str]]:
        """Return the seeds that were trained with earlier versions of the objective's files.

        Each has the names of the files that have changed since, '' for the objective's own.
        """
        now, found = self._recipe.config.source, {}
        for name in self.names():
            ended = self.result_of(name)
            if ended and ended.source and (changed := differing(ended.source, now)):
                found[name] = changed
        return found

    def _summary(self) -> dict[str, Any] | None:
        path = self.path / SUMMARY
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            _ = found["asked"], found["asked_seeds"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"'{path}' cannot be read ({type(error).__name__}: {error}); name another folder "
                "with --out, or write --force to start over"
            ) from error
        return found

    def seeds(self) -> int:
        """Return the number of seeds: the requested one, or an earlier call's if larger."""
        found = self._summary()
        return max(self._recipe.seeds, found["asked_seeds"] if found else 0)

    def result_of(self, name: str) -> SeedResult | None:
        """Return a seed's result; None if it has not ended or its weights are gone."""
        try:
            found = json.loads((self.state / f"{name}.json").read_text(encoding="utf-8"))
            is_complete = found["outcome"] == "complete"
            step = found.pop("step_file", None)
            file = self.path / f"{name}.pt" if is_complete else step and self.path / step
            seed, _, other = name.removeprefix("seed_").partition("_")
            precision = other or self._recipe.precision
            result = SeedResult(seed=int(seed), precision=precision, file=file, **found)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if is_complete and not (file and file.exists()) else result

    def names(self) -> list[str]:
        """Return the file names, without ending, of all seeds to train."""
        names = [_name(number) for number in range(self.seeds())]
        # The confirmation starts early because fp32 takes longest.
        return names if self._recipe.precision == "fp32" else [names[0], CONFIRMATION, *names[1:]]

    def collect(self, *, is_interrupted: bool = False) -> TrainingResult:
        """Return the training's result, from the seeds that are finished so far."""
        recipe, config = self._recipe, self._recipe.config
        ended = {name: self.result_of(name) for name in self.names()}
        confirmation = ended.pop(CONFIRMATION, None)
        seeds = [one for one in ended.values() if one is not None]
        values = {one.seed: one.value for one in seeds if one.value is not None}
        best = min if config.direction == "minimize" else max
        return TrainingResult(
            folder=self.path,
            study=recipe.study_name,
            trial=recipe.trial,
            metric=config.metric,
            direction=config.direction,
            precision=recipe.precision,
            epochs=recipe.epochs,
            seeds=seeds,
            confirmation=confirmation,
            mean=statistics.fmean(values.values()) if values else None,
            std=statistics.stdev(values.values()) if len(values) > 1 else None,
            best_seed=best(values, key=lambda seed: values[seed]) if values else None,
            seconds=sum(one.seconds for one in (*seeds, confirmation) if one is not None),
            is_complete=all(self.result_of(name) is not None for name in self.names()),
            is_interrupted=is_interrupted,
        )

    def write_summary(self, result: TrainingResult, environment: Mapping[str, Any]) -> None:
        """Write the summary alone.

        Raises:
            ConfigurationError: It cannot be written.
        """
        recipe = self._recipe
        content = {
            "version": _VERSION,
            **result.flat(),
            "folder": self.path.name,
            "asked": recipe.asked(),
            "asked_seeds": self.seeds(),
            "studied": dict(recipe.studied),
            "params": dict(recipe.params),
            "settings": recipe.stored_config(),
            "environment": dict(environment),
        }
        files.write_json(self.path / SUMMARY, content)

    def write(self, result: TrainingResult, environment: Mapping[str, Any]) -> None:
        """Write the summary, and the table and picture of the finished seeds.

        Raises:
            ConfigurationError: One of them cannot be written.
        """
        runs = [*result.seeds, *([result.confirmation] if result.confirmation else [])]
        if runs:
            curves = [_curve(run, result.metric, run is result.confirmation) for run in runs]
            title = result.study or self.path.name
            title += "" if result.trial is None else f", trial {result.trial}"
            drawn = picture(curves, metric=result.metric, title=title)
            files.write(self.path / _TABLE, _table(runs))
            files.write(self.path / _PICTURE, drawn)
        self.write_summary(result, environment)


def _name(seed: int) -> str:
    return f"seed_{seed}"


def _is_state(name: str) -> bool:
    """Return whether a file of this name in the state folder belongs to a seed."""
    stem, _, ending = name.partition(".")
    return bool(_SEED.fullmatch(stem)) and ending in ("pt", "json", "log")


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _table(runs: Sequence[SeedResult]) -> str:
    """Format one row per seed and epoch; a missing figure, as the loss of epoch 0, is empty."""
    own = ("seed", "precision", "epoch", "step", "seconds")
    names = dict.fromkeys(name for run in runs for row in run.rows for name in row["figures"])
    others = [name for name in names if name not in own]
    rows = [
        [
            *(run.seed, run.precision, row["epoch"], row["step"], row["seconds"]),
            *(_cell(row["figures"].get(name)) for name in others),
        ]
        for run in runs
        for row in run.rows
    ]
    return csv_text([*own, *others], rows)


def _cell(figure: float | None) -> float | None:
    return None if figure is None or math.isnan(figure) else figure


def _curve(run: SeedResult, metric: str, is_confirmation: bool) -> Curve:
    return Curve(
        label=f"seed {run.seed}, {run.precision}" if is_confirmation else f"seed {run.seed}",
        epochs=[row["epoch"] for row in run.rows],
        metric=[row["figures"][metric] for row in run.rows],
        loss=[row["figures"].get("loss", math.nan) for row in run.rows],
        is_confirmation=is_confirmation,
    )
