"""Train one seed of a training, in a process that `crew` starts on a slot.

The job comes as one line of JSON on standard input, events go out as lines of JSON. The end of the
input is the order to stop, so that the process also stops when its parent is killed.

Border: one seed, its checkpoint, its file. `crew` and `folder` determine the seeds.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from threading import Event
from typing import Any

import torch

from hpo import files
from hpo.engine.average import module_states
from hpo.engine.plan import Plan
from hpo.engine.reports import Epoch, Interval, Reporter
from hpo.engine.trial import train
from hpo.errors import ConfigurationError, StopRequested
from hpo.guard.evidence import Divergence
from hpo.machine.provenance import environment, git_sha
from hpo.refit import weights
from hpo.refit.weights import Trained
from hpo.study.objective import load_objective
from hpo.task.build import build
from hpo.task.memory import is_out_of_memory
from hpo.task.raised import described
from hpo.task.saving import save
from hpo.task.tensors import map_tensors
from objectives import Task

# Adam's second moment averages the last 1000 squared gradients or so. While it holds a few dozen, a
# step is as long as the rate allows, whatever the gradient. 2 % of 100 epochs are 34 steps of the
# smallest problem and 334 of the others.
_WARM_UP = 0.02
# The rate starts above 0, so that the first step moves the weights.
_FIRST = 1e-3
# Steps between two epochs are reported twice a second, as often as a terminal is redrawn.
_STEPS_EVERY_S = 0.5

Emit = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One seed to train.

    Attributes:
        name: Name of its file, without the ending.
        objective: Location of the objective's code.
        about: Description of the training, as `hpo.task.build` takes it.
        precision: Precision of the forward pass.
        ema_decay: Decay of the averaged weights; 0 for none.
        folder: Folder of the weights.
        state: Folder of the checkpoint, the result and the log.
    """

    name: str
    objective: str
    about: Mapping[str, Any]
    precision: str
    ema_decay: float
    device: str
    folder: str
    state: str

    @classmethod
    def read(cls, line: str) -> Job:
        return cls(**json.loads(line))

    def line(self) -> str:
        return json.dumps(asdict(self))


def schedule(progress: float) -> float:
    """Factor of the learning rate: linear warm-up over the first 2 % of steps, then a cosine to 0.

    With p the progress in [0, 1], w = 0.02 and f = 0.001:

    (p + f) / (w + f) for p < w, else (1 + cos(π (p - w) / (1 - w))) / 2
    """
    if progress < _WARM_UP:
        return (progress + _FIRST) / (_WARM_UP + _FIRST)
    return (1 + cos(pi * (progress - _WARM_UP) / (1 - _WARM_UP))) / 2


def train_seed(job: Job, emit: Emit, stop: Event) -> None:
    """Train a seed to its end, or until `stop` is set.

    Events: `epoch`, `steps`, and last one of `ended` (its result is in a file), `stopped`,
    `failed`.
    """
    try:
        _train(job, emit, stop)
    except BaseException as error:
        # The objective's hooks may raise any class; a stop is one that was asked for.
        if isinstance(error, StopRequested | KeyboardInterrupt) and stop.is_set():
            emit("stopped", {})
        elif isinstance(error, ConfigurationError):
            emit("failed", {"text": str(error)})
        else:
            logging.getLogger(__name__).exception("the training raised")
            known = "out of memory: " if is_out_of_memory(error) else ""
            emit("failed", {"text": known + described(error)})


def _train(job: Job, emit: Emit, stop: Event) -> None:
    config, device = job.about["study"], torch.device(job.device)
    task = build(job.about, device, load_objective(job.objective))
    reporter = _SeedReporter(config["metric"], emit, stop)
    checkpoint = Path(job.state) / f"{job.name}.pt"
    plan = Plan(
        epochs=config["epochs"],
        precision=job.precision,
        device=device,
        metric=config["metric"],
        checkpoint=checkpoint,
        about={**job.about, "precision": job.precision, "ema_decay": job.ema_decay},
        schedule=schedule,
        ema_decay=job.ema_decay or None,
    )
    result: dict[str, Any]
    try:
        done = train(task, plan, reporter)
    except Divergence as verdict:
        result = {
            **{"outcome": "diverged", "reason": verdict.reason, "detail": verdict.detail},
            **{"seconds": verdict.seconds, "skipped": verdict.skipped},
            "step_file": _keep_step(verdict, Path(job.folder) / f"{job.name}.step.pt"),
        }
    else:
        result = {
            **{"outcome": "complete", "value": done.value, "metrics": reporter.metrics},
            **{"seconds": done.seconds, "skipped": done.skipped},
        }
        found = _trained(job, task, done.averaged, reporter.metrics)
        weights.write(Path(job.folder) / f"{job.name}.pt", found)
    result |= {"source": config["source"], "rows": reporter.rows}
    files.write_json(Path(job.state) / f"{job.name}.json", result)
    # The checkpoint is no longer needed: the other files hold all results.
    checkpoint.unlink(missing_ok=True)
    emit("ended", {})


def _trained(job: Job, task: Task, averaged: Any, metrics: Mapping[str, float]) -> Trained:
    live = module_states(task)
    device = torch.device(job.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    found = environment(device=name, threads=torch.get_num_threads())
    # The file may be passed on, and the host's name is private.
    found.pop("host")
    return Trained(
        about=job.about,
        precision=job.precision,
        epochs=job.about["study"]["epochs"],
        metrics=metrics,
        modules=averaged or live,
        last=live if averaged else None,
        task=_on_cpu(task.state_dict()),
        environment={"torch": str(torch.__version__), "git_sha": git_sha(), **found},
    )


def _on_cpu(state: Mapping[str, Any]) -> dict[str, Any]:
    moved: dict[str, Any] = map_tensors(state, lambda _, tensor: tensor.detach().cpu())
    return moved


def _keep_step(verdict: Divergence, path: Path) -> str | None:
    """Save the step that shows a divergence, for `replay`; return its file name, None on error."""
    if verdict.saved is None:
        return None
    try:
        with files.renamed(path) as file:
            save(dict(verdict.saved), file)
    except OSError as error:
        logging.getLogger(__name__).warning("the step cannot be kept: %s", error)
        return None
    return path.name


class _SeedReporter(Reporter):
    """The engine's reporter of one seed: emits its figures, and keeps those of all epochs."""

    def __init__(self, metric: str, emit: Emit, stop: Event) -> None:
        self._metric, self._emit, self._stop = metric, emit, stop
        self._began, self._reported_at = time.monotonic(), 0.0
        self.rows: list[dict[str, Any]] = []
        self.metrics: dict[str, float] = {}

    def must_stop(self) -> bool:
        return self._stop.is_set()

    def on_epoch(self, epoch: Epoch) -> bool:
        self.metrics = dict(epoch.metrics)
        value = _shown(epoch.metrics[self._metric])
        if value is None:
            text = "before the first step the metric is %s"
            logging.getLogger(__name__).warning(text, epoch.metrics[self._metric])
        seconds = round(time.monotonic() - self._began, 3)
        where = {"epoch": epoch.epoch, "step": epoch.step}
        self.rows.append({**where, "seconds": seconds, "figures": epoch.flat()})
        self._emit("epoch", {**where, "value": value})
        return False

    def on_interval(self, interval: Interval) -> None:
        if time.monotonic() - self._reported_at > _STEPS_EVERY_S:
            self._reported_at = time.monotonic()
            self._emit("steps", {"step": interval.step})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "metrics": self.metrics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rows, self.metrics = list(state["rows"]), dict(state["metrics"])
        if self.rows:
            # Seconds count over interruptions.
            self._began -= self.rows[-1]["seconds"]
            for row in self.rows:
                event = {"epoch": row["epoch"], "step": row["step"], "is_earlier": True}
                self._emit("epoch", {**event, "value": _shown(row["figures"][self._metric])})


def _shown(value: float) -> float | None:
    """A metric as an event has it: none of an untrained network whose loss overflows."""
    return value if math.isfinite(value) else None
