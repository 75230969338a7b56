"""Check the hooks of one built task, each called as the engine calls it.

Border: one task and one batch; `trials` and `steps` compare several tasks and steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpo.check.findings import Check, Findings, listed, some
from hpo.engine.predictions import predicted
from hpo.engine.recording import DEFAULT_SAMPLES
from hpo.guard import forensics
from hpo.guard.verdict import Found
from hpo.task.forward import to_full, total
from hpo.task.parameters import parameter_names, trained
from hpo.task.random_state import random_state, seed_all
from hpo.task.state import evaluating
from hpo.task.tensors import named_tensors
from objectives import Task, Term


class Validation(NamedTuple):
    """The duration of a validation, and whether a second one gave other figures."""

    seconds: float
    is_noisy: bool


def check_batch(findings: Findings, task: Task, device: torch.device) -> Any:
    """The batch of step 0; None if the check raised."""
    with findings.check("batch") as check:
        batch, again = task.batch(0), named_tensors(task.batch(0))
        tensors = named_tensors(batch)
        elsewhere = [name for name, t in tensors.items() if t.device.type != device.type]
        if elsewhere:
            check.fail(f"not on {device}: {listed(elsewhere)}; move them .to(context.device)")
        other = differing(tensors, again)
        if other:
            check.warn(
                f"batch(0) gave another {listed(other)} the second time; draw it from a generator "
                "that is seeded with context.seed and the step"
            )
        check.seen = some(
            [f"{name or 'tensor'} {_dtype(t)} {list(t.shape)}" for name, t in tensors.items()]
        )
        return batch
    return None


def check_loss(findings: Findings, task: Task, batch: Any) -> bool:
    """Return whether the loss is a mapping of scalar terms from which every group learns."""
    with findings.check("loss") as check:
        terms = task.loss(to_full(task.forward(batch)), to_full(batch))
        if not isinstance(terms, Mapping):
            check.fail(f"loss() gave a {type(terms).__name__}; write {{'misfit': Term(value)}}")
            return False
        if not terms:
            check.fail("loss() gave no term; give at least one, as {'misfit': Term(value)}")
        for name, term in terms.items():
            _check_term(check, name, term)
        if check.has_failed:
            return False
        loss = total(terms)
        if not loss.requires_grad:
            check.fail("no term depends on a parameter by a gradient; is something detached?")
            return False
        loss.backward()  # type: ignore[no-untyped-call]
        names = parameter_names(task)
        without = [names[id(p)] for p in trained(task) if p.grad is None]
        if without:
            check.warn(f"no gradient at step 0, and would never train: {listed(without)}")
        _clear_gradients(task)
        _check_monitor(check, task)
        check.seen = ", ".join(f"{name} {term.value.item():.4g}" for name, term in terms.items())
    return not check.has_failed


def _check_term(check: Check, name: Any, term: Any) -> None:
    if not isinstance(name, str):
        check.fail(f"loss() names a term {name!r}; name it by a word")
    elif not isinstance(term, Term):
        check.fail(f"loss term '{name}' is a {type(term).__name__}; write Term(value)")
    elif not isinstance(term.value, Tensor):
        check.fail(f"loss term '{name}' is no tensor, but {term.value!r}")
    elif term.value.dim() or term.value.is_complex():
        shape = f"{_dtype(term.value)} of shape {list(term.value.shape)}"
        check.fail(f"loss term '{name}' is {shape}; make it one real number, as by .mean()")
    elif not math.isfinite(term.weight):
        check.fail(f"loss term '{name}' has the weight {term.weight!r}; make it finite")


def _check_monitor(check: Check, task: Task) -> None:
    for name, figure in task.monitor().items():
        if not isinstance(figure, Tensor) or figure.dim() or figure.is_complex():
            check.fail(f"monitor() gives '{name}' as {figure!r}; give one real number, a tensor")


def check_predictions(findings: Findings, task: Task, device: torch.device) -> None:
    """Check that the samples that a trial keeps can be predicted and stored."""
    with findings.check("predict") as check:
        found = predicted(task, range(DEFAULT_SAMPLES), device)
        for sample in found:
            if sample.error is not None:
                check.warn(f"sample {sample.sample} would be kept as its error: {sample.error}")
                break
        kinds = ", ".join(dict.fromkeys(sample.kind for sample in found))
        check.seen = f"{len(found)} samples, shown as {kinds}" if found else "none"


def check_precision(
    findings: Findings, task: Task, batch: Any, *, device: torch.device, precision: str
) -> None:
    """Check with the guard's own probe that loss and gradients are finite in a precision."""
    with findings.check(f"step in {precision}") as check:
        how: dict[str, Any] = {"device": device, "precision": precision}
        rng = random_state(device)
        probed = forensics.probe(task, batch, rng=rng, **how)
        check.seen = "loss and gradients are finite"
        if (probed.fp32, probed.own) == (Found.CLEAN, Found.CLEAN):
            return
        evidence = forensics.examine(task, batch, rng=rng, **how)
        only = f"; fp32 holds it, {precision} does not at any loss scale: its trials end as "
        only += "precision_range (--precision)"
        advice = f"; {evidence.advice}" if evidence.advice else ""
        check.fail(evidence.clause() + (only if probed.fp32 is Found.CLEAN else advice))


def check_validation(
    findings: Findings, task: Task, *, metric: str, device: torch.device
) -> Validation | None:
    """Check the figures, side effects and repeatability of validation; None if it failed."""
    with findings.check("validate") as check:
        before = {name: tensor.clone() for name, tensor in state_of(task).items()}
        # In training, the state of the global generators differs at each validation.
        seed_all(1)
        first = figures(task, device)
        seed_all(2)
        started_at = time.perf_counter()
        second = figures(task, device)
        seconds = time.perf_counter() - started_at
        if metric not in first:
            check.fail(f"validate() returned {sorted(first)} without the metric '{metric}'")
        elif not math.isfinite(first[metric]):
            check.warn(
                f"the metric '{metric}' of the untrained network is {first[metric]}; a trial whose "
                "metric is so after training is pruned"
            )
        changed = differing(before, state_of(task))
        if changed:
            check.fail(f"validate() changed {listed(changed)}; it is to leave the networks alone")
        infinite = [n for n, value in first.items() if n != metric and not math.isfinite(value)]
        if infinite:
            check.warn(f"not finite in the untrained network: {listed(infinite)}")
        noise = unlike(first, second)
        if noise:
            check.warn(
                f"asked twice, validate() gave another {noise}; draw its data from a generator "
                "that is seeded with context.problem_seed"
            )
        check.seen = ", ".join(f"{name} {value:.4g}" for name, value in first.items())
        return None if check.has_failed else Validation(seconds=seconds, is_noisy=bool(noise))
    return None


def figures(task: Task, device: torch.device) -> dict[str, float]:
    """The figures of a validation, called as the engine calls it."""
    with evaluating(task, device):
        return {name: float(value) for name, value in task.validate().items()}


def unlike(first: Mapping[str, float], second: Mapping[str, float]) -> str:
    """The first figure that differs, in words; empty if all agree."""
    for name in dict.fromkeys((*first, *second)):
        a, b = first.get(name, math.nan), second.get(name, math.nan)
        # The tolerances allow for a GPU's order of summation; new data move a figure far more.
        if not math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) and not (a != a and b != b):
            return f"'{name}' ({a:.6g}, then {b:.6g})"
    return ""


def state_of(task: Task) -> dict[str, Tensor]:
    """Every weight and buffer by name."""
    return {
        f"{key}.{name}": tensor
        for key, module in task.modules.items()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that are unequal (NaN equals NaN) or that only one mapping has."""

    def is_same(name: str) -> bool:
        if name not in one or name not in other or one[name].dtype != other[name].dtype:
            return False
        a, b = one[name], other[name]
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())

    return [name or "tensor" for name in dict.fromkeys((*one, *other)) if not is_same(name)]


def _clear_gradients(task: Task) -> None:
    for parameter in trained(task):
        parameter.grad = None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
