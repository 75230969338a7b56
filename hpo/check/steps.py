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

from hpo.check.findings import Check, Findings, listed, some
from hpo.check.hooks import differing, state_of
from hpo.check.trials import CURE, Trials
from hpo.engine.plan import Plan
from hpo.engine.reports import Epoch, Reporter
from hpo.engine.trial import train
from hpo.errors import StopRequested
from hpo.task.state import flags
from objectives import Group, Task

# Six steps are enough for a median, and few enough for a network that takes 1 s a step.
_STEPS = 6
# A layer may thaw, or a rate fall, after an epoch: so many epochs are rehearsed if they take no
# longer than this.
_LONGER_EPOCHS, _LONGER_S = 2, 2.0
# The steps between an interruption and the end of the rehearsal.
_RESUMED = 3


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
    watch = Stopwatch(_STEPS, trials.device, validation_s=validation_s)
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
    step_s = statistics.median(watch.step_s)
    if not other and trials.device.type == "cpu":
        with findings.check("resumption") as check:
            _check_resumption(check, trials, plan, step_s=step_s, validation_s=validation_s)
    return step_s


def _check_resumption(
    check: Check, trials: Trials, plan: Plan, *, step_s: float, validation_s: float
) -> None:
    """Check that a trial that is interrupted near the end of a longer rehearsal ends the same."""
    task = trials.build()
    per_epoch = task.steps_per_epoch
    affordable = int(_LONGER_S / max(step_s + validation_s / per_epoch, 1e-6))
    steps = min(max(affordable, _STEPS), max(_LONGER_EPOCHS * per_epoch, _STEPS))
    steps = min(steps, plan.epochs * per_epoch)
    before = max(steps - _RESUMED, 1)
    witness = _Witness(steps, trials.device, task)
    whole = state_of(_train(trials, plan, witness, task))
    with tempfile.TemporaryDirectory() as folder:
        plan = replace(plan, checkpoint=Path(folder) / "trial.pt")
        _train(trials, plan, Stopwatch(before, trials.device))
        resumed = _train(trials, plan, Stopwatch(steps - before, trials.device))
    past = [f"step {step}, which changed {what}" for step, what in witness.seen if step <= before]
    beyond = f", past {some(past)}" if past else ""
    other = differing(whole, state_of(resumed))
    if other:
        check.warn(
            f"interrupted after {before} steps{beyond} and resumed, a trial differs in "
            f"{listed(other)} after {steps}; {CURE}"
        )
    check.seen = f"the same after {before} and {steps - before} steps{beyond}"


def _train(
    trials: Trials, plan: Plan, watch: Stopwatch | None = None, task: Task | None = None
) -> Task:
    """Train a trial for some steps, resumed from its checkpoint if there is one."""
    task = task or trials.build()
    with suppress(StopRequested):
        train(task, plan, watch or Stopwatch(_STEPS, trials.device))
    return task


class Stopwatch(Reporter):
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


class _Witness(Stopwatch):
    """A stopwatch that notes the steps in which a task changes what it trains.

    Attributes:
        seen: The number of each such step, and what it changed, in words.
    """

    def __init__(self, steps: int, device: torch.device, task: Task) -> None:
        super().__init__(steps, device)
        self._task, self._done = task, -1
        self._before: dict[str, dict[str, object]] = {}
        self.seen: list[tuple[int, str]] = []

    def must_stop(self) -> bool:
        self._done += 1
        now = {**flags(self._task), "groups": {g.name: _rates(g) for g in self._task.groups}}
        for kind, values in now.items():
            before = self._before.get(kind, values)
            changed = [name for name in values if before.get(name, values[name]) != values[name]]
            if changed:
                self.seen.append((self._done, f"{kind} of {listed(changed)}"))
        self._before = now
        return super().must_stop()


def _rates(group: Group) -> object:
    return group.lr, group.clip, group.weight_decay, [id(p) for p in group.parameters]
