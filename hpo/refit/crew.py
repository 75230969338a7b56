"""Train a recipe over its seeds: a process each, at most one a slot; stop, resume, collect.

    train(recipe, config, emit=..., stop=...)  ->  TrainingResult

Border: emits events, prints nothing. What one process does is `seed`'s; it is reached by a command
line, lines of JSON and an environment. What lies in the folder is `training_folder`'s.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError, RunFailed
from hpo.machine.provenance import environment, git_sha
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

# How often a signal is looked for.
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How and where a recipe is trained.

    Attributes:
        environment: Of this process, for those that it starts.
        force: Start over where the folder holds a training.
        grace_s: How long processes have to stop before they are killed.
    """

    folder: Path
    slots: Sequence[Slot]
    environment: Mapping[str, str] = field(repr=False)
    force: bool = False
    grace_s: float = 30.0


def default_folder(recipe: Recipe, file: Path | None) -> Path:
    """Where a training goes if nobody says: below the current folder, by what it is of."""
    if recipe.study_name is not None and recipe.trial is not None:
        name = f"{recipe.study_name}-trial_{recipe.trial:05d}"
    else:
        name = file.stem if file is not None else "training"
    # A study's name may hold what would lead elsewhere.
    return Path("trained") / name.replace("/", "_").lstrip(".")


def train(
    recipe: Recipe,
    config: TrainConfig,
    *,
    emit: Callable[[TrainEvent], None],
    stop: threading.Event,
) -> TrainingResult:
    """Train all seeds of a recipe that are not finished.

    Raises:
        ConfigurationError: The folder cannot be used, or is of another training.
        RunFailed: Every seed diverged, or one could not be trained to its end.
    """
    folder = TrainingFolder(config.folder, recipe)
    environment = _environment(config)
    with folder.held(force=config.force):
        if others := folder.of_other_source():
            which = ", ".join(label_of(name) for name in others)
            text = f"the objective's file has changed since {which} ended; seeds may not compare"
            emit(Remark(label="note", text=text))
        left = [name for name in folder.names() if folder.result_of(name) is None]
        folder.write_summary(folder.collect(), environment)
        crew = _Crew(recipe, config, folder, emit)
        try:
            is_stopped = bool(left) and crew.work(left, stop)
        except BaseException:
            # Also the KeyboardInterrupt of a notebook: what is finished is told by the files.
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
    """What the result may depend on, without the host's name."""
    device = config.slots[0].device
    found = {**environment(device=device, threads=1), "git_sha": git_sha()}
    found.pop("host")
    return found


@dataclass(kw_only=True)
class _Worker:
    process: subprocess.Popen[str]
    slot: Slot
    progress: SeedProgress
    # Time and epoch of the first news of this process, from which its speed is told.
    began: tuple[float, int] | None = None
    remarks: set[str] = field(default_factory=set)


class _Crew:
    """The processes of one training."""

    def __init__(
        self,
        recipe: Recipe,
        config: TrainConfig,
        folder: TrainingFolder,
        emit: Callable[[TrainEvent], None],
    ) -> None:
        self._recipe, self._config, self._folder, self._emit = recipe, config, folder, emit
        self._best = min if recipe.config.direction == "minimize" else max
        self._news: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()
        self._running: dict[str, _Worker] = {}
        self._seeds = {
            name: SeedProgress(name=name, epochs=recipe.epochs) for name in folder.names()
        }
        for name, seed in self._seeds.items():
            result = folder.result_of(name)
            if result is not None:
                self._finish(seed, result)
        self.failures: dict[str, str] = {}

    def work(self, names: Sequence[str], stop: threading.Event) -> bool:
        """Train these seeds; True when stopped before their end."""
        waiting, free = deque(names), list(self._config.slots)[::-1]
        is_stopped = False
        try:
            while (waiting or self._running) and not is_stopped:
                while waiting and free:
                    self._start(waiting.popleft(), free.pop())
                free += self._take(_POLL_S)
                is_stopped = stop.is_set()
        finally:
            if self._running:
                self._emit(StoppingSeeds())
            stop.clear()
            self._end(stop)
        # Not by the signal: it may come when all have ended, or a process have one of its own.
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
        try:
            with (folder.state / f"{name}.log").open("a") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "hpo", "train_seed"],
                    env={**self._config.environment, **dict(slot.environment)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    # A Ctrl-C reaches this process alone, which has the others stop.
                    start_new_session=True,
                )
        except OSError as error:
            raise RunFailed(
                f"a process cannot be started ({error.strerror}); allow more processes and memory, "
                "or write a smaller --workers; the same command goes on"
            ) from error
        seed = self._seeds[name]
        seed.state, seed.slot = "training", slot.name
        self._running[name] = _Worker(process=process, slot=slot, progress=seed)
        threading.Thread(target=self._listen, args=(name, process), daemon=True).start()
        with suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.write(job.line() + "\n")
            process.stdin.flush()
        self._emit_progress(seed)

    def _listen(self, name: str, process: subprocess.Popen[str]) -> None:
        """Hand on what a process says, and that it has ended."""
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError):
                self._news.put((name, json.loads(line)))
        self._news.put((name, None))

    def _take(self, timeout_s: float) -> list[Slot]:
        """Take the news of some time; the slots that became free."""
        freed = []
        with suppress(queue.Empty):
            name, news = self._news.get(timeout=timeout_s)
            worker = self._running[name]
            if news is None:
                self._note_end(name, worker)
                freed.append(worker.slot)
            else:
                self._note(worker, news)
        return freed

    def _note(self, worker: _Worker, news: Mapping[str, Any]) -> None:
        seed, event = worker.progress, news["event"]
        if event == "remark" and news["text"] not in worker.remarks:
            # Once: a checkpoint that cannot be written cannot be written every ten seconds.
            worker.remarks.add(news["text"])
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
            worker.began = worker.began or (time.monotonic(), seed.epoch)
            seen_s, done = time.monotonic() - worker.began[0], seed.epoch - worker.began[1]
            seed.left_s = seen_s / done * (seed.epochs - seed.epoch) if done else None
            self._emit_progress(seed)

    def _note_end(self, name: str, worker: _Worker) -> None:
        """A process has ended: as it said, or by a kill."""
        code, seed = worker.process.wait(), worker.progress
        del self._running[name]
        result = self._folder.result_of(name)
        if seed.state == "ended" and result is not None:
            self._finish(seed, result)
            self._emit(SeedEnded(label=seed.label, result=result))
        elif seed.state not in ("stopped", "failed"):
            seed.state, text = "failed", f"its process ended with code {code}"
            if last := _last_line(self._folder.state / f"{name}.log"):
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

    def _end(self, hurry: threading.Event) -> None:
        """Have all processes stop; kill those that do not within the grace, or at a second ask."""
        for worker in self._running.values():
            with suppress(OSError):
                assert worker.process.stdin is not None
                worker.process.stdin.close()
        deadline = time.monotonic() + self._config.grace_s
        try:
            while self._running and time.monotonic() < deadline and not hurry.is_set():
                self._take(_POLL_S)
        finally:
            # Also where a notebook is interrupted a second time, and this one.
            for worker in self._running.values():
                worker.process.kill()
                worker.process.wait()


def _last_line(log: Path) -> str:
    """What a process said last; empty where it said nothing."""
    with suppress(OSError):
        lines = log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:200]
    return ""
