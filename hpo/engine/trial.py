"""Train one trial: autocast forward, fp32 loss, scaled backward, report, checkpoint.

Border: uses a `Task` and a `Reporter`; no database, no Optuna.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from hpo.engine import checkpoint
from hpo.engine.average import Average
from hpo.engine.monitor import INTERVAL_STEPS, Monitor
from hpo.engine.plan import Plan, Result
from hpo.engine.predictions import predicted
from hpo.engine.reports import Epoch, Interval, Reporter, Sample
from hpo.engine.stepper import Stepper
from hpo.errors import ObjectiveError, StopRequested
from hpo.guard import judge
from hpo.guard.counters import Counters
from hpo.guard.evidence import Divergence
from hpo.guard.saved_step import Setting
from hpo.guard.verdict import READ_EVERY
from hpo.task import contract
from hpo.task.forward import LinAlgError, is_matrix_refused, loss_terms, total
from hpo.task.memory import is_out_of_memory
from hpo.task.random_state import random_state
from hpo.task.state import MovingBuffers
from hpo.task.validation import validated
from objectives import Task

# A kill -9 costs a trial 10 s of training at most; one of the smallest size takes 6 s in all.
_CHECKPOINT_EVERY_S = 10.0
# Checkpoints are 20 write times apart: weights of some GB must not be written all the time.
_CHECKPOINT_SHARE = 20.0


def train(task: Task, plan: Plan, reporter: Reporter) -> Result:
    """Train a task to its end, from its checkpoint if there is one.

    Raises:
        Divergence: The guard's verdict that the trial is to be pruned.
        StopRequested: The reporter asked to stop; the checkpoint is up to date.
        ObjectiveError: The task breaks its contract.
    """
    fault = contract.first_fault(task, plan.device)
    if fault is not None:
        raise ObjectiveError(fault)
    trial = _Trial(task, plan)
    ended_by = _train(trial, reporter)
    trial.finish()
    return Result(
        value=trial.value,
        epochs=trial.step // trial.steps_per_epoch,
        is_pruned=ended_by == "pruner",
        is_timed_out=ended_by == "timeout",
        skipped=trial.counters.withheld(),
        spikes=trial.counters.spikes(),
        seconds=trial.elapsed_s,
        averaged=trial.averaged(),
    )


def _train(trial: _Trial, reporter: Reporter) -> str | None:
    """Run the training loop; return what ended it early: `pruner`, `timeout` or None."""
    task, plan = trial.task, trial.plan
    reporter.on_phase("resumption")
    is_resumed = trial.resume(reporter)
    reporter.on_phase("")
    if not is_resumed:
        reporter.on_epoch(trial.validate(reporter))
    trial.note_saved()
    phase = "first step"
    while trial.step < trial.steps:
        if reporter.must_stop():
            trial.save(reporter)
            raise StopRequested(f"stopped after step {trial.step} of {trial.steps}")
        if plan.timeout_s is not None and trial.elapsed_s > plan.timeout_s:
            return "timeout"
        reporter.on_phase(phase)
        batch = task.batch(trial.step)
        is_read_due = trial.is_read_due
        rng = random_state(plan.device) if is_read_due else {}
        trial.train_step(batch)
        phase = "step"
        if is_read_due:
            reporter.on_phase("diagnosis")
            with _verdict(reporter):
                trial.judge(batch, rng)
        # On a GPU a step is queued, and waited for where its figures are read.
        interval = trial.interval() if trial.step % INTERVAL_STEPS == 0 else None
        reporter.on_phase("")
        if interval is not None:
            reporter.on_interval(interval)
        if not trial.is_epoch_end:
            trial.predict(reporter)
        elif reporter.on_epoch(trial.validate(reporter)):
            return "pruner"
        if trial.is_save_due:
            trial.save(reporter)
    trial.save(reporter)
    return None


@contextmanager
def _verdict(reporter: Reporter) -> Iterator[None]:
    """Leave the task's hooks before a verdict is raised, so that it is known as the guard's own."""
    try:
        yield
    except Divergence:
        reporter.on_phase("")
        raise


class _Trial:
    """A task in training: its optimizer, scaler, counters and progress."""

    def __init__(self, task: Task, plan: Plan) -> None:
        self.task, self.plan = task, plan
        self.step = 0
        # It is read once: a task may change it, and the schedule and all reports follow this one.
        self.steps_per_epoch = task.steps_per_epoch
        self.steps = plan.epochs * self.steps_per_epoch
        self.value = math.nan
        self._started_at = time.monotonic()
        self._earlier_s = 0.0
        self._monitor = Monitor(task, plan.device)
        # A scaler exists for fp16 alone: bf16 has fp32's range, and fp32 needs none.
        has_scaler = plan.precision == "fp16"
        self._scaler = torch.amp.GradScaler(plan.device.type, enabled=has_scaler)
        self._one = torch.ones((), device=plan.device)
        self.counters = Counters(plan.device, has_scaler=has_scaler)
        self._buffers = MovingBuffers(task)
        self._networks = contract.grouped(task)
        self._setting = Setting(
            device=plan.device, precision=plan.precision, metric=plan.metric, about=plan.about
        )
        self._stepper = Stepper(
            task, plan.device, steps=self.steps, has_scaler=has_scaler, schedule=plan.schedule
        )
        # An optimizer that averages the weights itself gives those to validate.
        has_average = plan.ema_decay is not None and not self._stepper.has_modes
        self._average = Average(task, plan.ema_decay or 0.0) if has_average else None
        self._parts = checkpoint.Parts(
            task=task,
            stepper=self._stepper,
            scaler=self._scaler,
            counters=self.counters,
            monitor=self._monitor,
            average=self._average,
        )
        self._save_s, self._saved_at = 0.0, time.monotonic()

    @property
    def is_epoch_end(self) -> bool:
        return self.step % self.steps_per_epoch == 0

    @property
    def is_read_due(self) -> bool:
        """True if the guard's counters are read after the coming step."""
        done = self.step + 1
        return done % READ_EVERY == 0 or done % self.steps_per_epoch == 0

    @property
    def _is_prediction_due(self) -> bool:
        every = self.plan.predictions_every or self.steps_per_epoch
        return self.plan.predictions > 0 and self.step % every == 0

    @property
    def elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started_at

    def train_step(self, batch: Any) -> None:
        """Run forward, loss, backward, one unscale, check, clip, step and scale update."""
        task, stepper = self.task, self._stepper
        stepper.begin(self.counters.taken)
        self.step += 1
        self._buffers.note()
        try:
            terms = loss_terms(task, batch, device=self.plan.device, precision=self.plan.precision)
        except LinAlgError:
            # A decomposition refused its matrix, mostly for a NaN: this is an ordinary bad step.
            self._skip(self._one * math.nan)
            return
        loss = total(terms)
        if not self._backward(loss):
            self._skip(loss.detach())
            return
        self._scaler.unscale_(stepper.optimizer)
        norms_G = stepper.norms()
        withhold = self.counters.observe(loss.detach(), norms_G)
        self._step(withhold, norms_G)
        self._buffers.put_back(withhold)
        self._update_scale(loss.detach())
        self._monitor.add(
            loss,
            {name: term.value for name, term in terms.items()},
            norms_G=norms_G,
            figures=task.monitor(),
            idle=task.idle(self.step - 1),
        )

    def _step(self, withhold: Tensor, norms_G: Tensor | None) -> None:
        """Step the optimizer, if all gradients of its step are there, and the average."""
        stepper = self._stepper
        held = stepper.step_unless(withhold, norms_G, is_last=self.step == self.steps)
        if self._average is not None and held is not None:
            self._average.take(self.counters.taken // stepper.accumulate, held)

    def _backward(self, loss: Tensor) -> bool:
        """Compute gradients of the scaled loss; return False if a decomposition refused."""
        if self._stepper.accumulate > 1:
            # A large gradient would overflow sooner in fp16 than that of the whole mean.
            loss = loss / self._stepper.accumulate
        try:
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            is_matrix = not torch.isfinite(loss) or is_matrix_refused(error)
            if is_out_of_memory(error) or not is_matrix:
                raise
            return False
        return True

    def _skip(self, loss: Tensor) -> None:
        """Count a step that has no gradient."""
        nothing = self._one * math.nan
        withhold = self.counters.observe(loss, nothing.expand(len(self.task.groups)))
        self._step(withhold, None)
        self._buffers.put_back(withhold)
        if self._scaler.is_enabled() and torch.isfinite(loss):
            # It counts as an overflow: a backward's own checks may reject a scaled gradient.
            self._scaler.update(self._scaler.scale(self._one) / 2)
        self._monitor.add(loss, {})

    def _update_scale(self, loss: Tensor) -> None:
        """Update the loss scale, except after a non-finite loss, for which no scale is to blame."""
        if not self._scaler.is_enabled():
            return
        before = self._scaler.scale(self._one)
        self._scaler.update()
        after = self._scaler.scale(self._one)
        self._scaler.update(torch.where(torch.isfinite(loss), after, before))

    def judge(self, batch: Any, rng: Mapping[str, Any]) -> None:
        """Have the guard judge the steps since its last read."""
        judge.judge_step(
            self.task,
            batch,
            self._setting,
            counters=self.counters,
            scale=self._scaler.scale(self._one),
            rng=rng,
            elapsed_s=lambda: self.elapsed_s,
        )

    def validate(self, reporter: Reporter) -> Epoch:
        """Validate the networks as they are, and sum up the epoch before."""
        task, plan = self.task, self.plan
        reporter.on_phase("validation")
        lost = contract.replaced(task, self._networks)
        if lost:
            raise ObjectiveError(lost)
        with self._averaged():
            metrics = validated(task, device=plan.device, metric=plan.metric)
            self.value = metrics[plan.metric]
            # Before the first step nothing has diverged: an untrained network's loss may overflow.
            if self.step:
                with _verdict(reporter):
                    self._judge_metric()
            # Predictions follow validation, as a task may use what it kept from that.
            samples = self._predicted(reporter)
        reporter.on_phase("")
        return Epoch(
            epoch=self.step // self.steps_per_epoch,
            epochs=plan.epochs,
            step=self.step,
            metrics=metrics,
            **self._monitor.end_epoch(),
            scale=self._scaler.get_scale(),
            skipped=self.counters.withheld(),
            spikes=self.counters.spikes(),
            samples=samples,
        )

    def _judge_metric(self) -> None:
        judge.judge_metric(
            self.task,
            self._setting,
            value=self.value,
            step=self.step,
            counters=self.counters,
            elapsed_s=lambda: self.elapsed_s,
        )

    def _averaged(self) -> AbstractContextManager[None]:
        """Put the averaged weights in place of the live ones, if there is an average."""
        return self._stepper.evaluating() if self._average is None else self._average.in_place()

    def averaged(self) -> dict[str, dict[str, Tensor]] | None:
        """The modules' states with the averaged weights; None without an average."""
        return None if self._average is None else self._average.modules()

    def finish(self) -> None:
        """Leave the weights that were validated in the modules, where the optimizer has such."""
        self._stepper.finish()

    def interval(self) -> Interval:
        """Means over the steps since the last interval."""
        return self._monitor.interval(self.step, self._scaler.get_scale())

    def predict(self, reporter: Reporter) -> None:
        """Pass the predictions that are due between two validations to the reporter."""
        if not self._is_prediction_due:
            return
        with self._averaged():
            samples = self._predicted(reporter)
        reporter.on_phase("")
        if samples:
            epoch = self.step // self.steps_per_epoch
            reporter.on_predictions(samples, epoch=epoch, step=self.step)

    def _predicted(self, reporter: Reporter) -> Sequence[Sample]:
        if not self._is_prediction_due:
            return ()
        reporter.on_phase("prediction")
        return predicted(self.task, range(self.plan.predictions), self.plan.device)

    @property
    def is_save_due(self) -> bool:
        """True if the last checkpoint is so old that a new one is worth its time."""
        every_s = max(_CHECKPOINT_EVERY_S, _CHECKPOINT_SHARE * self._save_s)
        return time.monotonic() - self._saved_at > every_s

    def note_saved(self) -> None:
        """Count all training up to now as saved."""
        self._saved_at = time.monotonic()

    def save(self, reporter: Reporter) -> None:
        """Write everything that the next step depends on to the checkpoint."""
        began = time.monotonic()
        progress = checkpoint.Progress(self.step, self.value, self.elapsed_s)
        reporter.on_phase("checkpoint")
        is_saved = checkpoint.save(self.plan, self._parts, reporter, progress)
        reporter.on_phase("")
        if is_saved:
            reporter.on_saved(self.step)
        self.note_saved()
        self._save_s = self._saved_at - began

    def resume(self, reporter: Reporter) -> bool:
        """Resume from the checkpoint; return False if none can be used."""
        progress = checkpoint.resume(self.plan, self._parts, reporter)
        if progress is None:
            return False
        self.step, self.value, self._earlier_s = progress
        return True
