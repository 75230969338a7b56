"""Train one trial: autocast forward, fp32 loss, scaled backward, report, checkpoint.

Border: sees a `Task` and a `Reporter`, no database and no Optuna.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from hpo import guard
from hpo.errors import Divergence, ObjectiveError, StopRequested
from hpo.precision import loss_terms, total
from objectives import Group, Task, Term

# A trial of the smallest size takes 6 s; longer ones lose no more than this to kill -9.
_CHECKPOINT_EVERY_S = 10.0

CHECKPOINT_VERSION = 1

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a task is trained.

    Attributes:
        metric: The key of `validate()` that is reported.
        checkpoint: File to resume from and to keep up to date; None keeps nothing.
        about: What the checkpoint is of, plain data, kept in it.
    """

    epochs: int
    precision: str
    device: torch.device
    metric: str
    checkpoint: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch did, and what validation found after it. Epoch 0 is the untrained network.

    Attributes:
        loss: Mean over the epoch's steps; NaN for epoch 0.
        grad_norms: By group, of the epoch's last step, before clipping.
        scale: Of the loss; 1 without a scaler.
        skipped: Steps withheld from the weights since the trial began.
    """

    epoch: int
    epochs: int
    step: int
    metrics: Mapping[str, float]
    loss: float = math.nan
    terms: Mapping[str, float] = field(default_factory=dict)
    grad_norms: Mapping[str, float] = field(default_factory=dict)
    scale: float = 1.0
    skipped: int = 0

    def line(self) -> str:
        """The epoch in one line of a log."""
        finite = "finite" if math.isfinite(self.loss) else "NOT FINITE"
        norms = ", ".join(f"{name} {norm:.3g}" for name, norm in self.grad_norms.items())
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return (
            f"epoch {self.epoch}/{self.epochs} | loss {finite} {self.loss:.4g} | "
            f"grad norm {norms} | scale {self.scale:g} | skipped {self.skipped} | {metrics}"
        )

    def flat(self) -> dict[str, float]:
        """All figures by name, for a table."""
        return {
            **self.metrics,
            "loss": self.loss,
            "scale": self.scale,
            "skipped": self.skipped,
            **{f"loss.{name}": value for name, value in self.terms.items()},
            **{f"grad_norm.{name}": norm for name, norm in self.grad_norms.items()},
        }


class Reporter(Protocol):
    """Who hears of a trial's course, and may end it."""

    def must_stop(self) -> bool:
        """Whether to stop after this step; asked at every step."""

    def report(self, epoch: Epoch) -> bool:
        """Take note of an epoch; whether to prune the trial now."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial's training ended.

    Attributes:
        value: The metric after the last epoch done.
        epochs: How many were done.
        is_pruned: Whether the reporter ended it early.
        seconds: Wall time, over interruptions.
    """

    value: float
    epochs: int
    is_pruned: bool
    skipped: int
    seconds: float


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
        rng = guard.random_state(plan.device) if is_read_due else {}
        trial.train_step(batch)
        if is_read_due:
            trial.judge(batch, rng)
        if not trial.is_epoch_end:
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
        self.counters = guard.Counters(plan.device)
        self._started_at = time.monotonic()
        self._earlier_s = 0.0
        self._sums: dict[str, Tensor] = {}
        self._norms_G = torch.zeros(len(task.groups), device=plan.device)
        # A scaler exists for fp16 alone: bf16 has fp32's range, and fp32 needs none.
        self._scaler = torch.amp.GradScaler(plan.device.type, enabled=plan.precision == "fp16")
        own = task.optimizer()
        self._is_fused = own is None
        self._optimizer = own if own is not None else _adamw(task, plan.device)
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
    def elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started_at

    def train_step(self, batch: Any) -> None:
        """Forward, loss, backward, one unscale, check, clip, step, update."""
        task, scaler, optimizer = self.task, self._scaler, self._optimizer
        self._set_learning_rates()
        terms = loss_terms(task, batch, device=self.plan.device, precision=self.plan.precision)
        loss = total(terms)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        self._norms_G = torch.stack([_norm(group, self.plan.device) for group in task.groups])
        withhold = self.counters.observe(loss.detach(), self._norms_G)
        for group, norm in zip(task.groups, self._norms_G, strict=True):
            if math.isfinite(group.clip):
                clip_grads_with_norm_(group.parameters, group.clip, norm)
        self._step_unless(withhold)
        scaler.update()
        self.step += 1
        self._add(loss, terms)

    def _step_unless(self, withhold: Tensor) -> None:
        """Step the optimizer; on a non-finite gradient leave the weights alone."""
        if self._scaler.is_enabled():
            self._scaler.step(self._optimizer)
        elif self._is_fused:
            # What the scaler would do: the fused kernel reads the flag on the device.
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

    def _add(self, loss: Tensor, terms: Mapping[str, Term]) -> None:
        """Sum the epoch's loss and terms on the device."""
        for name, value in {"": loss, **{n: t.value for n, t in terms.items()}}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()

    def judge(self, batch: Any, rng: Mapping[str, Tensor]) -> None:
        """Ask the guard about the steps since it was asked last."""
        plan, reading = self.plan, self.counters.read()
        if not reading.is_suspect and not reading.is_stalled:
            return
        guard.judge(
            reading,
            step=self.step,
            scale=self._scaler.get_scale(),
            probe=lambda: guard.probe(
                self.task, batch, device=plan.device, precision=plan.precision, rng=rng
            ),
        )

    def validate(self) -> Epoch:
        """Validate the networks as they are, and sum up the epoch that led there."""
        task, plan = self.task, self.plan
        with _evaluating(task, plan.device):
            metrics = {name: float(value) for name, value in task.validate().items()}
        if plan.metric not in metrics:
            raise ObjectiveError(
                f"validate() returned {sorted(metrics)} without the metric '{plan.metric}'"
            )
        self.value = metrics[plan.metric]
        if not math.isfinite(self.value):
            raise Divergence(
                "metric_nonfinite", f"'{plan.metric}' is {self.value} after step {self.step}"
            )
        names = [group.name for group in task.groups]
        epoch = Epoch(
            epoch=self.step // task.steps_per_epoch,
            epochs=plan.epochs,
            step=self.step,
            metrics=metrics,
            terms={n: s.item() / task.steps_per_epoch for n, s in self._sums.items() if n},
            loss=self._sums[""].item() / task.steps_per_epoch if self._sums else math.nan,
            grad_norms=dict(zip(names, self._norms_G.tolist(), strict=True)),
            scale=self._scaler.get_scale(),
            skipped=self.counters.withheld(),
        )
        self._sums = {}
        return epoch

    def save(self) -> None:
        """Write everything that the next step depends on, beside the old file, then rename.

        A checkpoint is an insurance: where it cannot be written, the trial goes on without.
        """
        path = self.plan.checkpoint
        if path is None:
            return
        state = {
            "version": CHECKPOINT_VERSION,
            "about": dict(self.plan.about),
            "step": self.step,
            "value": self.value,
            "seconds": self.elapsed_s,
            "modules": {name: module.state_dict() for name, module in self.task.modules.items()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "counters": self.counters.state_dict(),
            "sums": self._sums,
            "norms": self._norms_G,
            "task": self.task.state_dict(),
            "rng": guard.random_state(self.plan.device),
        }
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            torch.save(state, beside)
            beside.replace(path)
        except (OSError, RuntimeError) as error:
            _logger.warning("checkpoint %s cannot be written: %s", path, error)
            with suppress(OSError):
                beside.unlink(missing_ok=True)

    def resume(self) -> bool:
        """Go on from the checkpoint; False where there is none that can be read."""
        path, device = self.plan.checkpoint, self.plan.device
        if path is None or not path.exists():
            return False
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            if state["version"] != CHECKPOINT_VERSION or state["about"] != dict(self.plan.about):
                raise ValueError("it is of another trial or version")
        except Exception as error:
            _logger.warning("checkpoint %s cannot be used, starting over: %s", path, error)
            return False
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.counters.load_state_dict(state["counters"])
        self.task.load_state_dict(state["task"])
        guard.set_random_state(state["rng"], device)
        self._sums, self._norms_G = state["sums"], state["norms"]
        self.step, self.value = state["step"], state["value"]
        self._earlier_s = state["seconds"]
        return True


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


@contextmanager
def _evaluating(task: Task, device: torch.device) -> Iterator[None]:
    """Evaluation mode, no gradient, no autocast; modes and random state are put back."""
    parts = [part for module in task.modules.values() for part in module.modules()]
    modes = [part.training for part in parts]
    devices = [device] if device.type == "cuda" else []
    try:
        for module in task.modules.values():
            module.eval()
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield
    finally:
        # One by one: train() on the whole would thaw a part that was frozen on purpose.
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
