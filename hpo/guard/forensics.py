"""Probe a batch that gave a bad step, and collect the evidence on a true divergence.

`probe` runs a batch in fp32 and in the training precision, and returns which run is finite.
`examine` runs it again in fp32, in the training precision and in float64, traced and term by term.
It names the loss term, the first non-finite tensor with its operation, and the parameters. Both
leave weights, buffers and random state as they were; `probe` clears the gradients.

Border: computes and describes; `verdict` decides what follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpo.guard.evidence import Evidence, Pass, Spectrum
from hpo.guard.float64 import Widened
from hpo.guard.gradients import Gradients, at, kind, norm
from hpo.guard.trace import Operation, Trace, is_finite, origin, uncompiled
from hpo.guard.verdict import SCALE_FLOOR, Found, Probed
from hpo.task.forward import LinAlgError, is_matrix_refused, loss_terms, total
from hpo.task.parameters import parameter_names, trained
from hpo.task.state import undisturbed
from hpo.task.tensors import named_tensors
from objectives import Task

# The backward of these divides by the gaps between eigenvalues.
_GAPS = ("linalg_eigh", "linalg_eig", "linalg_svd", "eigh", "svd")
_ADVICE = "eigh_signal and eigh_broadened of models.linalg have a finite gradient"


def probe(
    task: Task, batch: Any, *, device: torch.device, precision: str, rng: Mapping[str, Any]
) -> Probed:
    """Run a batch once in fp32 and, if that is clean, once in the training precision.

    An fp16 loss is scaled by `SCALE_FLOOR`: what a smaller loss scale could cure is no divergence.

    Args:
        rng: The random state that the step started from, as `random_state` returns it.
    """

    def look(precision: str) -> Found:
        with undisturbed(task, device, rng):
            try:
                terms = loss_terms(task, batch, device=device, precision=precision)
            except LinAlgError:
                return Found.LOSS
            loss = total(terms)
            if not is_finite(loss):
                return Found.LOSS
            if not loss.requires_grad:
                return Found.CLEAN
            try:
                # Reentrant checkpoints refuse autograd.grad, so this calls backward().
                scaled = loss * (SCALE_FLOOR if precision == "fp16" else 1.0)
                scaled.backward()  # type: ignore[no-untyped-call]
                # The counters, too, judge norms by group: a norm overflows before its elements do.
                norms = [norm([p.grad for p in group.parameters]) for group in task.groups]
                return Found.CLEAN if all(map(math.isfinite, norms)) else Found.GRADIENT
            except RuntimeError as error:
                if not is_matrix_refused(error):
                    raise
                return Found.GRADIENT
            finally:
                for parameter in trained(task):
                    parameter.grad = None

    fp32 = look("fp32")
    is_done = precision == "fp32" or fp32 is not Found.CLEAN
    return Probed(fp32, Found.CLEAN if is_done else look(precision))


def examine(
    task: Task, batch: Any, *, device: torch.device, precision: str, rng: Mapping[str, Any]
) -> Evidence:
    """Collect the evidence on a batch that is not finite.

    It names the first finding in fp32 or, if fp32 is clean, in `precision`.
    """
    looks: dict[str, _Look] = {}
    for name in dict.fromkeys(("fp32", precision, "fp64")):
        with undisturbed(task, device, rng), uncompiled():
            looks[name] = _look(task, batch, device=device, precision=name)
    found = looks["fp32"].found or looks[precision].found or Evidence()
    spectra = [look.spectra for look in looks.values() if look.spectra]
    return replace(
        found,
        passes={name: look.figures for name, look in looks.items()},
        spectra=spectra[0] if spectra else (),
        advice=_ADVICE if found.operation in _GAPS and found.direction == "backward" else None,
    )


def examine_validation(task: Task) -> Evidence:
    """Collect the evidence on a non-finite metric; the caller has set the task's modes."""
    states = _states(task)
    trace = Trace(modules=task.modules, named={id(t): name for name, t in states.items()})
    with uncompiled(), trace, suppress(Exception):
        task.validate()
    found = _made_by(trace.last, states) if trace.last is not None else Evidence()
    return found if found.handed_in is not None else replace(found, direction="validation")


class _Look(NamedTuple):
    """Result of one traced pass over a batch: figures, the first finding, decompositions."""

    figures: Pass
    found: Evidence | None
    spectra: tuple[Spectrum, ...]


def _look(task: Task, batch: Any, *, device: torch.device, precision: str) -> _Look:
    """Trace the forward and, term by term, the backward of a batch in one precision."""
    widened = Widened(trained(task)) if precision == "fp64" else None
    states = _states(task)
    named = {**named_tensors(batch), **states}
    trace = Trace(modules=task.modules, named={id(t): name for name, t in named.items()})
    width = "fp32" if widened else precision
    try:
        with widened or nullcontext(), trace:
            terms = loss_terms(task, batch, device=device, precision=width)
    except Exception as error:
        # The user's code may refuse float64: that pass then gives no evidence, but does no harm.
        made = trace.last if isinstance(error, LinAlgError) else None
        found = _made_by(made, states) if made else None
        return _Look(Pass(error=_in_a_line(error)), found, tuple(trace.spectra))
    values = {name: term.weight * term.value for name, term in terms.items()}
    findings = [
        _of_value(name, value, trace.of(terms[name].value), states)
        for name, value in values.items()
        if not is_finite(value)
    ]
    gradients = Gradients(task, widened.leaves if widened else trained(task))
    norms, refused = {}, None
    for name, value in values.items():
        # The backward of a non-finite value shows nothing, and that of eigh may raise.
        if not (value.requires_grad and is_finite(value)):
            continue
        try:
            norms[name], found = gradients.of(name, value, trace)
        except Exception as error:
            # A decomposition may refuse its gradient, and a graph may run backward only once.
            refused = _in_a_line(error)
            found = _refused(name, error)
        findings += [found] if found else []
    findings += [found for found in (_of_sum(total(terms)), gradients.of_sum()) if found]
    terms_here = {name: float(value.detach()) for name, value in values.items()}
    figures = Pass(terms=terms_here, grad_norms=norms, error=refused)
    return _Look(figures, findings[0] if findings else None, tuple(trace.spectra))


def _made_by(operation: Operation, states: Mapping[str, Tensor]) -> Evidence:
    """Origin of a non-finite result: an operation, a weight or a part of the batch."""
    first = origin(operation)
    bad = tuple(name for name, tensor in states.items() if not is_finite(tensor))
    if not first.leaves:
        return at(first, Evidence(direction="forward"))
    name = first.leaves[0]
    if name in states:
        return Evidence(direction="weights", handed_in=name, parameter=name, parameters=bad)
    return Evidence(direction="batch", handed_in=name or "(a constant)")


def _of_value(
    name: str, value: Tensor, made: Operation | None, states: Mapping[str, Tensor]
) -> Evidence:
    """Evidence on a term whose weighted value is not finite."""
    if made is None:
        found = Evidence(direction="forward")
    elif made.is_finite:
        found = Evidence(direction="forward", operation="the product with its weight")
    else:
        found = _made_by(made, states)
    return replace(found, term=name, kind=kind(value))


def _refused(term: str, error: Exception) -> Evidence | None:
    """Evidence on a backward that refused its gradient, as a complex eigh's does for a NaN."""
    if not (isinstance(error, RuntimeError) and is_matrix_refused(error)):
        return None
    name = str(error).partition("_backward")[0].rpartition(" ")[2]
    return Evidence(term=term, kind="NaN", direction="backward", operation=name)


def _of_sum(loss: Tensor) -> Evidence | None:
    if is_finite(loss):
        return None
    return Evidence(kind=kind(loss), direction="forward", operation="the sum of its terms")


def _states(task: Task) -> dict[str, Tensor]:
    """Parameters and buffers by name, trained parameters first."""
    names = parameter_names(task)
    found: dict[str, Tensor] = {names[id(p)]: p for p in trained(task)}
    for key, module in task.modules.items():
        found |= {f"{key}.{name}": tensor for name, tensor in module.named_parameters()}
        found |= {f"{key}.{name}": tensor for name, tensor in module.named_buffers()}
    return found


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
