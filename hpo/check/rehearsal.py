"""Rehearse an objective: each hook called as the engine calls it, in the order of a trial.

    python -m hpo check examples/own_objective.py

Border: decides the order of the checks, and which of them must pass before the next; the checks are
in `structure`, `hooks`, `trials`, `steps` and `orders`.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hpo.check import choices, hooks, structure
from hpo.check.findings import Findings
from hpo.check.orders import check_orders
from hpo.check.steps import check_training
from hpo.check.trials import Trials
from hpo.errors import ObjectiveError
from hpo.study.declared import Finding, declared
from hpo.study.request import DEFAULTS, usual
from hpo.task.forward import PRECISIONS
from hpo.task.random_state import kept_random_state
from objectives import NoObjective, Objective, hidden_beside, load


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The estimated duration of a trial, from a few steps of the default configuration.

    Attributes:
        validations: Their number in a trial; one is before its first step.
    """

    parameters: int
    step_s: float
    validation_s: float
    steps: int
    validations: int

    @property
    def trial_s(self) -> float:
        return self.steps * self.step_s + self.validations * self.validation_s


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """The result of a rehearsal.

    Attributes:
        size: None if the objective cannot be imported, or its declarations allow no build.
        precision: The precision of the trained steps.
        pace: None if a check failed.
        next_command: The command to run next; None if a check failed.
    """

    objective: str
    findings: Sequence[Finding]
    size: str | None = None
    space: str | None = None
    precision: str | None = None
    pace: Pace | None = None
    next_command: str | None = None

    @property
    def has_failed(self) -> bool:
        return any(finding.state == "failed" for finding in self.findings)

    def flat(self) -> dict[str, Any]:
        """All fields and derived values, for JSON."""
        pace = self.pace
        return {
            **asdict(self),
            "has_failed": self.has_failed,
            "pace": pace and {**asdict(pace), "trial_s": pace.trial_s},
        }


def rehearse(
    spec: str,
    *,
    epochs: int,
    size: str | None = None,
    space: str | None = None,
    precisions: Sequence[str] = PRECISIONS,
    device: torch.device,
    options: Mapping[str, str] | None = None,
    in_fresh_process: bool = False,
) -> Rehearsed:
    """Check an objective against the contract, on one batch and a few steps.

    Args:
        spec: A name, `module:attr` or file, as for `objectives.load`.
        epochs: Epochs of a trial.
        size: None for a run's default on this device if the objective has it, else the smallest.
        space: None for `wide` if the objective has it, else the first.
        precisions: The precisions in which a step is checked. The trained steps use a run's default
            if it is among them, else the first.
        options: Values of the objective's own options; the defaults if left out.
        in_fresh_process: True to train two short trials in a process of their own as well, which
            imports torch and the objective anew.

    Raises:
        ObjectiveError: The objective has no such size or space.
    """
    findings = Findings(Path(spec).resolve() if spec.endswith(".py") else None)
    objective = _import(findings, spec)
    if objective is None:
        return Rehearsed(objective=spec, findings=findings.found)
    findings.file = Path(inspect.getsourcefile(type(objective)) or "").resolve()
    findings.found += declared(objective)
    if any(findings.failed(part) for part in ("spaces", "sizes", "options")):
        return Rehearsed(objective=spec, findings=findings.found)
    sizes, spaces = objective.sizes, list(objective.spaces)
    size = _one_of(objective, "size", size, sizes, preferred=_usual(device)["size"])
    space = _one_of(objective, "space", space, spaces, preferred=DEFAULTS["space"])
    usually = _usual(device)["precision"]
    precision = usually if usually in precisions else precisions[0]
    own = dict(options or {})
    trials = Trials(
        findings, objective, device=device, size=size, space=space, epochs=epochs, options=own
    )
    with kept_random_state(device):
        try:
            pace = _rehearse(
                findings,
                trials,
                objective,
                precisions=precisions,
                precision=precision,
                spec=spec if in_fresh_process else None,
            )
        finally:
            trials.process.restore()
    return Rehearsed(
        objective=spec,
        findings=findings.found,
        size=size,
        space=space,
        precision=precision,
        pace=pace,
        next_command=_next_command(spec, size=size, space=space, device=device, options=own)
        if pace
        else None,
    )


def _rehearse(
    findings: Findings,
    trials: Trials,
    objective: Objective,
    *,
    precisions: Sequence[str],
    precision: str,
    spec: str | None,
) -> Pace | None:
    """Run the checks in order, as far as each allows the next; the pace if none failed."""
    device, metric = trials.device, objective.metric
    is_settled = trials.settle(precision)
    configurations = trials.suggested() if is_settled else []
    task = trials.built(configurations) if configurations else None
    if task is None or not structure.check_modules(findings, task, device):
        return None
    choices.check_choices(findings, trials, objective, precision=precision)
    structure.check_groups(findings, task)
    structure.check_steps(findings, task)
    structure.check_optimizer(findings, task)
    batch = hooks.check_batch(findings, task, device)
    # The checks that run a batch need valid groups, because they sort gradients by group.
    is_runnable = not (findings.failed("groups") or findings.failed("batch"))
    if is_runnable and hooks.check_loss(findings, task, batch):
        for each in precisions:
            hooks.check_precision(findings, task, batch, device=device, precision=each)
    validation = hooks.check_validation(findings, task, metric=metric, device=device)
    hooks.check_predictions(findings, task, device)
    if not findings.failed("groups"):
        is_comparable = validation is not None and not validation.is_noisy
        trials.restore(task, is_comparable=is_comparable)
    if findings.has_failed or validation is None:
        return None
    step_s = check_training(
        findings, trials, metric=metric, precision=precision, validation_s=validation.seconds
    )
    if step_s is None:
        return None
    check_orders(
        findings,
        trials,
        objective=objective,
        metric=metric,
        precision=precision,
        step_s=step_s,
        spec=spec,
    )
    parameters = [p for module in task.modules.values() for p in module.parameters()]
    return Pace(
        parameters=sum(parameter.numel() for parameter in parameters),
        step_s=step_s,
        validation_s=validation.seconds,
        steps=trials.epochs * task.steps_per_epoch,
        validations=trials.epochs + 1,
    )


def _import(findings: Findings, spec: str) -> Objective | None:
    with findings.check("import") as check:
        try:
            objective = load(spec)
        except NoObjective as error:
            check.fail(str(error))
            return None
        for path in hidden_beside(objective):
            check.warn(f"'{path}' is hidden by this project's package of that name; rename it")
        check.seen = type(objective).__name__
        return objective
    return None


def _usual(device: torch.device) -> dict[str, str]:
    return usual(on_gpu=device.type == "cuda")


def _next_command(
    spec: str, *, size: str, space: str, device: torch.device, options: Mapping[str, str]
) -> str:
    """The command of a run on this device, with the flags that differ from its defaults."""
    command = f"python -m hpo --objective {shlex.quote(spec)}"
    command += f" --space {space}" if space != DEFAULTS["space"] else ""
    command += f" --size {size}" if size != _usual(device)["size"] else ""
    command += "".join(f" --{name} {shlex.quote(value)}" for name, value in options.items())
    return f"{command} --n_trials 20"


def _one_of(
    objective: Objective, what: str, asked: str | None, known: Sequence[str], *, preferred: str
) -> str:
    if asked is None:
        return preferred if preferred in known else known[0]
    if asked not in known:
        raise ObjectiveError(
            f"objective '{objective.name}' has no {what} '{asked}'; use one of "
            f"{', '.join(known)} (--{what})"
        )
    return asked
