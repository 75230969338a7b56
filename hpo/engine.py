"""Train one trial: autocast forward, fp32 loss, scaled backward, report, checkpoint.

Border: sees a `Task` and a `Reporter`, no database and no Optuna.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from hpo import checkpoint, guard, judge
from hpo.counters import Counters
from hpo.course import Epoch, Interval, Plan, Reporter, Result, Sample
from hpo.errors import Divergence, ObjectiveError, StopRequested
from hpo.gradients import parameter_names, trained
from hpo.monitor import TELL_EVERY, Monitor
from hpo.precision import LinAlgError, is_matrix_refused, loss_terms, total
from hpo.predictions import predicted
from hpo.saved import Setting
from hpo.surroundings import MovingBuffers, random_state, set_random_state
from objectives import Group, Task

# A trial of the smallest size takes 6 s; longer ones lose no more than this to kill -9.
_CHECKPOINT_EVERY_S = 10.0


def train(task: Task, plan: Plan, reporter: Reporter) -> Result:
    """Train a task, from its checkpoint where there is one, to its end.

    Raises:
        Divergence: The guard's verdict.
        StopRequested: The reporter asked to stop; the checkpoint is up to date.
        ObjectiveError: The task breaks its contract.
    """
    trial = _Trial(task, plan)
    try:
        is_pruned = _train(trial, reporter)
    except Divergence as verdict:
        verdict.skipped, verdict.seconds = trial.counters.withheld(), trial.elapsed_s
        raise
    return Result(
        value=trial.value,
        epochs=trial.step // task.steps_per_epoch,
        is_pruned=is_pruned,
        skipped=trial.counters.withheld(),
        spikes=trial.counters.spikes(),
        seconds=trial.elapsed_s,
    )


def _train(trial: _Trial, reporter: Reporter) -> bool:
    """The loop; whether the reporter pruned the trial."""
    task, plan = trial.task, trial.plan
    if not trial.resume():
        reporter.report(trial.validate())
    saved_at = time.monotonic()
    while trial.step < trial.steps:
        if reporter.must_stop():
            trial.save()
            raise StopRequested(f"stopped after step {trial.step} of {trial.steps}")
        batch = task.batch(trial.step)
        is_read_due = trial.is_read_due
        rng = random_state(plan.device) if is_read_due else {}
        trial.train_step(batch)
        if is_read_due:
            trial.judge(batch, rng)
        if trial.step % TELL_EVERY == 0:
            reporter.note(trial.tell())
        if not trial.is_epoch_end:
            trial.predict(reporter)
            continue
        if reporter.report(trial.validate()):
            return True
        if time.monotonic() - saved_at > _CHECKPOINT_EVERY_S:
            trial.save()
            saved_at = time.monotonic()
    trial.save()
    return False


class _Trial:
    """A task in training: its optimizer, scaler, counters, and where it stands."""

    def __init__(self, task: Task, plan: Plan) -> None:
        self.task, self.plan = task, plan
        self.step = 0
        self.steps = plan.epochs * task.steps_per_epoch
        self.value = math.nan
        self._started_at = time.monotonic()
        self._earlier_s = 0.0
        self._monitor = Monitor(task, plan.device)
        # A scaler exists for fp16 alone: bf16 has fp32's range, and fp32 needs none.
        has_scaler = plan.precision == "fp16"
        _refuse_half(task, has_scaler=has_scaler)
        self._scaler = torch.amp.GradScaler(plan.device.type, enabled=has_scaler)
        self._one = torch.ones((), device=plan.device)
        self.counters = Counters(plan.device, has_scaler=has_scaler)
        self._buffers = MovingBuffers(task)
        self._setting = Setting(
            device=plan.device, precision=plan.precision, metric=plan.metric, about=plan.about
        )
        own = task.optimizer()
        self._is_fused = own is None
        self._optimizer = own if own is not None else _adamw(task, plan.device)
        if len(self._optimizer.param_groups) != len(task.groups):
            raise ObjectiveError(
                f"optimizer() has {len(self._optimizer.param_groups)} parameter groups, the task "
                f"{len(task.groups)}; give it one for each of `groups`, in their order"
            )
        positions = [task.schedule(i / self.steps) for i in range(self.steps)]
        factors_S = torch.tensor(positions, device=plan.device)
        self._lrs_GS = torch.stack([group.lr * factors_S for group in task.groups])

    @property
    def is_epoch_end(self) -> bool:
        return self.step % self.task.steps_per_epoch == 0

    @property
    def is_read_due(self) -> bool:
        """Whether the guard's counters are read after the step to come."""
        done = self.step + 1
        return done % guard.READ_EVERY == 0 or done % self.task.steps_per_epoch == 0

    @property
    def _is_prediction_due(self) -> bool:
        every = self.plan.predictions_every or self.task.steps_per_epoch
        return self.plan.predictions > 0 and self.step % every == 0

    @property
    def elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started_at

    def train_step(self, batch: Any) -> None:
        """Forward, loss, backward, one unscale, check, clip, step, update."""
        task, scaler, optimizer = self.task, self._scaler, self._optimizer
        self._set_learning_rates()
        self.step += 1
        self._buffers.note()
        optimizer.zero_grad(set_to_none=True)
        try:
            terms = loss_terms(task, batch, device=self.plan.device, precision=self.plan.precision)
        except LinAlgError:
            # A decomposition refused its matrix, mostly for a NaN in it: a bad step as any other.
            self._skip(self._one * math.nan)
            return
        loss = total(terms)
        if not self._backward(loss):
            self._skip(loss.detach())
            return
        scaler.unscale_(optimizer)
        norms_G = torch.stack([_norm(group, self.plan.device) for group in task.groups])
        withhold = self.counters.observe(loss.detach(), norms_G)
        for group, norm in zip(task.groups, norms_G, strict=True):
            if math.isfinite(group.clip):
                clip_grads_with_norm_(group.parameters, group.clip, norm)
        self._step_unless(withhold)
        self._buffers.put_back(withhold)
        self._update_scale(loss.detach())
        self._monitor.add(
            loss,
            {name: term.value for name, term in terms.items()},
            norms_G=norms_G,
            figures=task.monitor(),
            idle=task.idle(self.step - 1),
        )

    def _backward(self, loss: Tensor) -> bool:
        """Gradients of the scaled loss; False where a decomposition's backward refused."""
        try:
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if torch.isfinite(loss) and not is_matrix_refused(error):
                raise
            return False
        return True

    def _skip(self, loss: Tensor) -> None:
        """Count a step that has no gradient."""
        nothing = self._one * math.nan
        self._buffers.put_back(self.counters.observe(loss, nothing.expand(len(self.task.groups))))
        if self._scaler.is_enabled() and torch.isfinite(loss):
            # As an overflow: on a scaled gradient a backward's own checks may be too strict.
            self._scaler.update(self._scaler.scale(self._one) / 2)
        self._monitor.add(loss, {})

    def _update_scale(self, loss: Tensor) -> None:
        """Let the scaler search on; but a loss that is not finite is no fault of its scale."""
        if not self._scaler.is_enabled():
            return
        before = self._scaler.scale(self._one)
        self._scaler.update()
        after = self._scaler.scale(self._one)
        self._scaler.update(torch.where(torch.isfinite(loss), after, before))

    def _step_unless(self, withhold: Tensor) -> None:
        """Step the optimizer; leave the weights alone where the step is not finite.

        Not by the scaler's own step, which looks at gradients alone and exists in fp16 alone.
        """
        if self._is_fused:
            # The fused kernel reads the flag on the device.
            self._optimizer.found_inf = withhold  # type: ignore[attr-defined]
            self._optimizer.grad_scale = None  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not withhold.item():
            self._optimizer.step()

    def _set_learning_rates(self) -> None:
        """The schedule follows the steps that reached the weights, not the steps tried."""
        position = self.counters.taken.clamp(max=self.steps - 1)
        lrs_G = self._lrs_GS.index_select(1, position).squeeze(1)
        for group, lr in zip(self._optimizer.param_groups, lrs_G, strict=True):
            if self._is_fused:
                group["lr"].copy_(lr)
            else:
                group["lr"] = lr.item()

    def judge(self, batch: Any, rng: Mapping[str, Tensor]) -> None:
        """Ask the guard about the steps since it was asked last."""
        judge.judge_step(
            self.task,
            batch,
            self._setting,
            counters=self.counters,
            scale=self._scaler.scale(self._one),
            rng=rng,
        )

    def validate(self) -> Epoch:
        """Validate the networks as they are, and sum up the epoch that led there."""
        task, plan = self.task, self.plan
        metrics = judge.validated(task, self._setting)
        self.value = metrics[plan.metric]
        judge.judge_metric(
            task,
            self._setting,
            value=self.value,
            step=self.step,
            scales=tuple(self.counters.history),
        )
        return Epoch(
            epoch=self.step // task.steps_per_epoch,
            epochs=plan.epochs,
            step=self.step,
            metrics=metrics,
            **self._monitor.end_epoch(),
            scale=self._scaler.get_scale(),
            skipped=self.counters.withheld(),
            spikes=self.counters.spikes(),
            # After validation, of which a task may have kept something.
            samples=self._predicted(),
        )

    def tell(self) -> Interval:
        """What the steps since the last time came to."""
        return self._monitor.tell(self.step, self._scaler.get_scale())

    def predict(self, reporter: Reporter) -> None:
        """Hand the reporter predictions that are due between two validations."""
        samples = self._predicted()
        if samples:
            epoch = self.step // self.task.steps_per_epoch
            reporter.keep(samples, epoch=epoch, step=self.step)

    def _predicted(self) -> Sequence[Sample]:
        if not self._is_prediction_due:
            return ()
        return predicted(self.task, range(self.plan.predictions), self.plan.device)

    def save(self) -> None:
        """Keep everything that the next step depends on."""
        if self.plan.checkpoint is None:
            return
        state = {
            "step": self.step,
            "value": self.value,
            "seconds": self.elapsed_s,
            "modules": {name: module.state_dict() for name, module in self.task.modules.items()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "counters": self.counters.state_dict(),
            "monitor": self._monitor.state_dict(),
            "task": self.task.state_dict(),
            "rng": random_state(self.plan.device),
        }
        checkpoint.write(self.plan.checkpoint, self.plan.about, state)

    def resume(self) -> bool:
        """Go on from the checkpoint; False where there is none that can be read."""
        path, device = self.plan.checkpoint, self.plan.device
        state = None if path is None else checkpoint.read(path, self.plan.about, device)
        if state is None:
            return False
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.counters.load_state_dict(state["counters"])
        self.task.load_state_dict(state["task"])
        set_random_state(state["rng"], device)
        self._monitor.load_state_dict(state["monitor"])
        self.step, self.value = state["step"], state["value"]
        self._earlier_s = state["seconds"]
        return True


def _refuse_half(task: Task, *, has_scaler: bool) -> None:
    """Refuse parameters that no step could train: frozen ones may be in half, these may not."""
    names = parameter_names(task)
    for parameter in trained(task):
        is_bf16 = parameter.dtype == torch.bfloat16
        if parameter.dtype == torch.float16 or (is_bf16 and has_scaler):
            dtype = str(parameter.dtype).removeprefix("torch.")
            why = (
                "a loss scaler does not unscale its gradient"
                if has_scaler
                else ("small updates round to nothing")
            )
            raise ObjectiveError(
                f"parameter '{names[id(parameter)]}' is {dtype} and trained, where {why}; keep it "
                "in float32 (autocast does the rest), or freeze it"
            )


def _adamw(task: Task, device: torch.device) -> torch.optim.Optimizer:
    """Fused AdamW, which takes rate and found_inf on the device, so that no step waits for it."""
    groups = [
        {
            "params": list(group.parameters),
            "lr": torch.tensor(group.lr, device=device),
            "weight_decay": group.weight_decay,
        }
        for group in task.groups
    ]
    return torch.optim.AdamW(groups, fused=True)


def _norm(group: Group, device: torch.device) -> Tensor:
    """The norm of a group's gradient, 0 where no parameter has one."""
    gradients = [p.grad for p in group.parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=device)
    return get_total_norm(gradients, foreach=True)
