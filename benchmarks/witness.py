"""Train one bad objective twice: under the guard, and in an ordinary training loop.

    python benchmarks/witness.py [--steps 200]

The objective is `ris_covariance_naive.py`, whose loss is finite and whose gradient is NaN. The
guard prunes it and reports the reason. The ordinary loop (autocast, GradScaler, labels as they are,
no check) trains it to the end. With a scaler, no step ever reaches a weight and no message appears.
Without one, the first step makes the weights NaN, the next one raises, and a penalty of 1e6 is
returned. The control rows differ in one function only, `eigh_signal` instead of `eigh`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from ris_covariance_naive import PENALTY, NaiveTask, objective
from situations.task import Log

from hpo.engine import trial
from hpo.engine.plan import Plan, Result
from hpo.guard.evidence import Divergence
from hpo.task.forward import PRECISIONS
from objectives import Context

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
_CPU = torch.device("cpu")
_RUNS = [(name, p) for name in ("eigh", "eigh_signal") for p in reversed(PRECISIONS)]


def build(eigenvectors: str, *, seed: int = 0) -> NaiveTask:
    """Build a trial of the objective at its defaults."""
    torch.manual_seed(seed)
    context = Context(
        device=_CPU,
        size="full",
        epochs=1,
        seed=seed,
        problem_seed=objective.problem_seed("full"),
        options={"eigenvectors": eigenvectors, "penalty": "on"},
    )
    return objective.build(objective.defaults("narrow"), context)


def guarded(eigenvectors: str, precision: str, *, epochs: int = 2) -> Divergence | Result:
    """Train under the guard; the verdict or the result."""
    plan = Plan(epochs=epochs, precision=precision, device=_CPU, metric=objective.metric)
    try:
        return trial.train(build(eigenvectors), plan, Log())
    except Divergence as verdict:
        return verdict


@dataclass(kw_only=True)
class Course:
    """The record of an ordinary training loop.

    Attributes:
        losses: The loss of every step that had one.
        changed: The number of steps that changed any weight.
        scale: The scaler's scale at the end; None without a scaler.
        error: The exception that ended it, if any.
        value: The returned value: the metric or the penalty.
    """

    losses: list[float] = field(default_factory=list)
    changed: int = 0
    scale: float | None = None
    error: str | None = None
    value: float = PENALTY
    are_weights_finite: bool = True


def unguarded(eigenvectors: str, precision: str, *, steps: int) -> Course:
    """Train in an ordinary loop and record the losses and the state of the weights."""
    task, course = build(eigenvectors), Course()
    parameters = [p for group in task.groups for p in group.parameters]
    optimizer = torch.optim.AdamW(parameters, lr=task.groups[0].lr)
    half = _HALF.get(precision)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    try:
        for step in range(steps):
            batch = task.batch(step)
            with torch.autocast("cpu", dtype=half, enabled=half is not None):
                outputs = task.forward(batch)
                terms = task.loss(outputs.float(), batch)
                loss = torch.stack([term.weight * term.value for term in terms.values()]).sum()
            optimizer.zero_grad()
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            with _noting_change(parameters, course):
                scaler.step(optimizer)
                scaler.update()
            course.losses.append(loss.item())
        with torch.no_grad():
            course.value = dict(task.validate())[objective.metric]
    except RuntimeError as error:
        # On NaN, torch's eigh raises forward or backward, depending on the matrix size.
        course.error = f"{type(error).__name__} in step {len(course.losses) + 1}"
    course.scale = scaler.get_scale() if scaler.is_enabled() else None
    course.are_weights_finite = all(bool(p.isfinite().all()) for p in parameters)
    return course


@contextmanager
def _noting_change(parameters: list[torch.nn.Parameter], course: Course) -> Iterator[None]:
    before = [p.detach().clone() for p in parameters]
    yield
    same = all(torch.equal(p.detach(), old) for p, old in zip(parameters, before, strict=True))
    course.changed += not same


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=200, help="of the ordinary loop; default 200")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"CPU, one thread, torch {torch.__version__}; N = 144, batch 4\n")
    print("| under the guard | precision | verdict | after step | what it says |")
    print("|---|---|---|---|---|")
    for eigenvectors, precision in _RUNS:
        ended = guarded(eigenvectors, precision)
        print(f"| {eigenvectors} | {precision} | {_verdict(ended)} |", flush=True)
    print(
        "\n| ordinary loop | precision | steps done | changed a weight | loss: first, last, range "
        "| last scale | weights | returned | raised |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for eigenvectors, precision in _RUNS:
        course = unguarded(eigenvectors, precision, steps=given.steps)
        print(f"| {eigenvectors} | {precision} | {_course(course)} |", flush=True)


def _verdict(ended: Divergence | Result) -> str:
    if isinstance(ended, Result):
        steps = ended.epochs * NaiveTask.steps_per_epoch
        return f"healthy | {steps} | {objective.metric} {ended.value:.3f}"
    scales = ended.evidence.scales
    return f"{ended.reason} | {scales[-1][0] if scales else '-'} | {ended.detail}"


def _course(course: Course) -> str:
    losses = course.losses
    seen = f"{losses[0]:.3f}, {losses[-1]:.3f}, {min(losses):.3f} to {max(losses):.3f}"
    scale = "none" if course.scale is None else f"{course.scale:.3g}"
    weights = "finite" if course.are_weights_finite else "NaN"
    return (
        f"{len(losses)} | {course.changed} | {seen} | {scale} | {weights} | "
        f"{course.value:.4g} | {course.error or 'nothing'}"
    )


if __name__ == "__main__":
    main()
