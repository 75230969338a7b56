"""Train a recipe over its seeds, in one process per seed and slot: start, stop, resume, collect.

    train(recipe, config, launcher, emit=..., stop=...)  ->  TrainingResult

Border: emits events and prints nothing. `seed_process` trains one seed; it is reached by a command
line, lines of JSON and an environment. `folder` keeps the files.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError, RunFailed
from hpo.launch.launcher import JobLauncher
from hpo.launch.supervisor import JobSupervisor, News, Process
from hpo.machine.provenance import environment, git_sha
from hpo.machine.reservations import Reservations, reserved
from hpo.machine.slots import Slot
from hpo.refit.events import (
    Remark,
    SeedEnded,
    SeedProgress,
    StoppingSeeds,
    TrainEvent,
    TrainProgress,
    label_of,
)
from hpo.refit.folder import CONFIRMATION, TrainingFolder
from hpo.refit.recipe import Recipe
from hpo.refit.results import SeedResult, TrainingResult
from hpo.refit.seed_process import Job
from hpo.start import PROGRAM
from hpo.study.objective import in_words

# The processes' messages are read this often; a stop ends the wait at once.
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Execution settings of a training.

    Attributes:
        folder: Folder of the results.
        slots: Slots to choose those to train on from, one process on each.
        workers: The most slots to use; None for all.
        force: Start over if the folder holds a training.
        grace_s: Seconds that processes have to stop before they are killed.
    """

    folder: Path
    slots: Sequence[Slot]
    workers: int | None = None
    force: bool = False
    grace_s: float = 30.0


def default_folder(recipe: Recipe, file: Path | None) -> Path:
    """Return the default folder of a training: in `trained`, named after its trial or file."""
    if recipe.study_name is not None and recipe.trial is not None:
        name = f"{recipe.study_name}-trial_{recipe.trial:05d}"
    else:
        name = file.stem if file is not None else "training"
    # A study's name may hold '/' or start with '..', which would lead out of this folder.
    return Path("trained") / name.replace("/", "_").lstrip(".")


def train(
    recipe: Recipe,
    config: TrainConfig,
    launcher: JobLauncher,
    *,
    emit: Callable[[TrainEvent], None],
    stop: threading.Event,
) -> TrainingResult:
    """Train all seeds of a recipe that are not finished.

    Raises:
        ConfigurationError: The folder cannot be used, or holds another training.
        RunFailed: Every seed diverged, one could not be trained to its end, or the results cannot
            be written.
    """
    folder = TrainingFolder(config.folder, recipe)
    environment = _environment(config)

    def say(what: str) -> None:
        emit(Remark(label="note", text=what))

    with folder.held(force=config.force), closing(Reservations()) as reservations:
        free = reserved(config.slots, reservations, say=say, stop=stop, most=config.workers)
        config = replace(config, slots=free)
        if others := folder.of_other_source():
            which = ", ".join(label_of(name) for name in others)
            changed = in_words(sorted({file for files in others.values() for file in files}))
            text = f"{changed} since {which} ended; seeds may not compare"
            emit(Remark(label="note", text=text))
        left = [name for name in folder.names() if folder.result_of(name) is None]
        folder.write_summary(folder.collect(), environment)
        crew = _Crew(recipe, config, folder, launcher, emit)
        try:
            is_stopped = bool(left) and crew.work(left, stop)
        except BaseException:
            # A notebook's KeyboardInterrupt ends here, too; the files must list finished seeds.
            with suppress(ConfigurationError):
                folder.write(folder.collect(is_interrupted=True), environment)
            raise
        result = folder.collect(is_interrupted=is_stopped)
        try:
            folder.write(result, environment)
        except ConfigurationError as error:
            raise RunFailed(str(error)) from error
    if crew.failures and not is_stopped:
        first, text = next(iter(crew.failures.items()))
        more = f" (and {len(crew.failures) - 1} more)" if len(crew.failures) > 1 else ""
        raise RunFailed(
            f"{first}{more} could not be trained to the end: {text}; the log is in "
            f"'{folder.state}', and the same command goes on with what is not finished"
        )
    if result.is_complete and result.best_seed is None:
        one = result.seeds[0]
        raise RunFailed(
            f"all {len(result.seeds)} seeds diverged, the first as {one.reason}: {one.detail}; "
            "train another trial (--trial N) or in a wider precision (--precision)"
        )
    return result


def _environment(config: TrainConfig) -> dict[str, Any]:
    """Return the environment that the result may depend on, without the host's name."""
    device = config.slots[0].device
    found = {**environment(device=device, threads=1), "git_sha": git_sha()}
    found.pop("host")
    return found


@dataclass(kw_only=True)
class _Pace:
    """Seconds and epoch of a process's first report, for its speed, and its remarks so far."""

    began: tuple[float, int] | None = None
    remarks: set[str] = field(default_factory=set)


class _Crew:
    """The processes of one training."""

    def __init__(
        self,
        recipe: Recipe,
        config: TrainConfig,
        folder: TrainingFolder,
        launcher: JobLauncher,
        emit: Callable[[TrainEvent], None],
    ) -> None:
        self._recipe, self._config, self._folder, self._emit = recipe, config, folder, emit
        self._best = min if recipe.config.direction == "minimize" else max
        self._supervisor = JobSupervisor(launcher)
        self._paces: dict[str, _Pace] = {}
        self._seeds = {
            name: SeedProgress(name=name, epochs=recipe.epochs) for name in folder.names()
        }
        for name, seed in self._seeds.items():
            result = folder.result_of(name)
            if result is not None:
                self._finish(seed, result)
        self.failures: dict[str, str] = {}

    def work(self, names: Sequence[str], stop: threading.Event) -> bool:
        """Train these seeds; return True if stopped before all have ended."""
        waiting, free = deque(names), list(self._config.slots)[::-1]
        running = self._supervisor.running
        try:
            while (waiting or running) and not stop.is_set():
                while waiting and free:
                    self._start(waiting.popleft(), free.pop())
                stop.wait(_POLL_S)
                free += self._note(self._supervisor.take())
        finally:
            if running:
                self._emit(StoppingSeeds())
            stop.clear()
            self._supervisor.end(stop, grace_s=self._config.grace_s, note=self._note)
        # Judge by the seeds' states: a signal may come late, or reach one process only.
        return any(s.state in ("waiting", "training", "stopped") for s in self._seeds.values())

    def _start(self, name: str, slot: Slot) -> None:
        recipe, folder = self._recipe, self._folder
        is_confirmation = name == CONFIRMATION
        job = Job(
            name=name,
            objective=recipe.objective,
            about=recipe.about(0 if is_confirmation else int(name.removeprefix("seed_"))),
            precision="fp32" if is_confirmation else recipe.precision,
            ema_decay=recipe.ema_decay,
            device=slot.device,
            folder=str(folder.path.absolute()),
            state=str(folder.state.absolute()),
        )
        log = folder.state / f"{name}.log"
        argv = [*PROGRAM, "train_seed"]
        self._supervisor.start_job(name, slot, argv, log=log, job=job.line())
        seed, self._paces[name] = self._seeds[name], _Pace()
        seed.state, seed.slot = "training", slot.name
        self._emit_progress(seed)

    def _note(self, news: News) -> list[Slot]:
        """Handle messages and ends of processes; return the slots that became free."""
        for name, message in news.messages:
            self._note_message(name, message)
        for process, code in news.ended:
            self._note_end(process, code)
        return [process.slot for process, _ in news.ended]

    def _note_message(self, name: str, news: Mapping[str, Any]) -> None:
        seed, pace, event = self._seeds[name], self._paces[name], news["event"]
        if event == "remark" and news["text"] not in pace.remarks:
            # Each remark is shown once: a checkpoint that cannot be written fails every 10 s.
            pace.remarks.add(news["text"])
            self._emit(Remark(label=seed.label, text=news["text"]))
        elif event == "failed":
            seed.state = "failed"
            self.failures[seed.label] = news["text"]
            self._emit(Remark(label=seed.label, text=f"failed: {news['text']}"))
        elif event in ("ended", "stopped"):
            seed.state = event
        elif event == "steps":
            seed.step = news["step"]
            self._emit_progress(seed)
        elif event == "epoch":
            seed.epoch, seed.step, seed.value = news["epoch"], news["step"], news["value"]
            seed.best = self._best(v for v in (seed.value, seed.best) if v is not None)
            if news.get("is_earlier"):
                return
            pace.began = pace.began or (time.monotonic(), seed.epoch)
            seen_s, done = time.monotonic() - pace.began[0], seed.epoch - pace.began[1]
            seed.left_s = seen_s / done * (seed.epochs - seed.epoch) if done else None
            self._emit_progress(seed)

    def _note_end(self, process: Process, code: int) -> None:
        """Handle a process's end, after its own report or without one (a crash or a kill)."""
        seed, result = self._seeds[process.name], self._folder.result_of(process.name)
        if seed.state == "ended" and result is not None:
            self._finish(seed, result)
            self._emit(SeedEnded(label=seed.label, result=result))
        elif seed.state not in ("stopped", "failed"):
            seed.state, text = "failed", f"its process ended with code {code}"
            if last := process.last_line()[:200]:
                text += f" ({last})"
            self.failures[seed.label] = text
            self._emit(Remark(label=seed.label, text=text))
        self._emit_progress(seed)

    def _finish(self, seed: SeedProgress, result: SeedResult) -> None:
        seed.state, seed.value, seed.left_s = result.outcome, result.value, None
        metric = self._recipe.config.metric
        if result.rows:
            seed.epoch = result.rows[-1]["epoch"]
            seed.best = self._best(row["figures"][metric] for row in result.rows)

    def _emit_progress(self, seed: SeedProgress) -> None:
        self._emit(TrainProgress(seeds=tuple(self._seeds.values()), changed=seed))
