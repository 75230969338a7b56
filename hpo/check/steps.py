"""Train a few steps of a trial: their duration, repeatability and resumption.

Border: the engine trains and resumes as in any study; this module compares the trials.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from hpo.check.findings import Findings, listed
from hpo.check.hooks import differing, state_of
from hpo.check.trials import CURE, Trials
from hpo.engine.plan import Plan
from hpo.engine.reports import Epoch, Reporter
from hpo.engine.trial import train
from hpo.errors import StopRequested
from objectives import Task

# Six steps are enough for a median, and few enough for a network that takes 1 s a step.
_STEPS = 6


def check_training(
    findings: Findings, trials: Trials, *, metric: str, precision: str, validation_s: float
) -> float | None:
    """Train twice, then interrupt and resume; the seconds of a step, or None on failure."""
    plan = Plan(
        epochs=trials.epochs,
        precision=precision,
        device=trials.device,
        metric=metric,
        about=trials.about(),
    )
    watch = _Stopwatch(_STEPS, trials.device, validation_s=validation_s)
    with findings.check("training") as check:
        whole = state_of(_train(trials, plan, watch))
        other = differing(whole, state_of(_train(trials, plan)))
        # A GPU sums in any order, so that two equal trials may differ there.
        if other and trials.device.type == "cpu":
            check.warn(
                f"two trials with the same seed differ in {listed(other)} after {_STEPS} steps; "
                "draw from torch's own generator, or from one seeded with context.seed"
            )
        check.seen = f"{_STEPS} steps in {precision}"
    if check.has_failed:
        return None
    if not other and trials.device.type == "cpu":
        with findings.check("resumption") as check, tempfile.TemporaryDirectory() as folder:
            plan = replace(plan, checkpoint=Path(folder) / "trial.pt")
            half = _STEPS // 2
            _train(trials, plan, _Stopwatch(half, trials.device))
            resumed = _train(trials, plan, _Stopwatch(_STEPS - half, trials.device))
            other = differing(whole, state_of(resumed))
            if other:
                check.warn(
                    f"interrupted after {half} steps and resumed, a trial differs in "
                    f"{listed(other)} after {_STEPS}; {CURE}"
                )
            check.seen = f"the same after {half} and {_STEPS - half} steps"
    return statistics.median(watch.step_s)


def _train(trials: Trials, plan: Plan, watch: _Stopwatch | None = None) -> Task:
    """Train a trial for some steps, resumed from its checkpoint if there is one."""
    task = trials.build()
    with suppress(StopRequested):
        train(task, plan, watch or _Stopwatch(_STEPS, trials.device))
    return task


class _Stopwatch(Reporter):
    """A reporter that stops a training after some steps and records the time of each."""

    def __init__(self, steps: int, device: torch.device, *, validation_s: float = 0.0) -> None:
        self._left, self._device, self._validation_s = steps, device, validation_s
        self._since: float | None = None
        self.step_s: list[float] = []

    def must_stop(self) -> bool:
        self._note()
        self._since = time.perf_counter()
        self._left -= 1
        return self._left < 0

    def on_epoch(self, epoch: Epoch) -> bool:
        # The last step of an epoch includes a validation, whose time is subtracted.
        self._note(self._validation_s)
        self._since = None
        return False

    def _note(self, validation_s: float = 0.0) -> None:
        if self._since is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.step_s.append(max(0.0, time.perf_counter() - self._since - validation_s))
