"""Why a step is not finite: the probe that decides, and the evidence of a true divergence.

`probe` runs a batch once in fp32 and once in the precision trained in, and says which of them is
finite. `examine` runs it again in fp32, in that precision and in float64, term by term and watched,
and names the loss term, the first non-finite tensor and its operation, and the parameters. Both
leave weights, gradients, buffers and random state as they were. Border: computes and describes;
what follows from it is `guard`'s.
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
from hpo.guard.gradients import (
    Gradients,
    at,
    kind,
    norm,
)
from hpo.guard.trace import (
    Operation,
    Trace,
    is_finite,
    origin,
)
from hpo.guard.verdict import SCALE_FLOOR, Found, Probed
from hpo.task.forward import (
    LinAlgError,
    is_matrix_refused,
    loss_terms,
    total,
)
from hpo.task.parameters import parameter_names, trained
from hpo.task.state import undisturbed
from hpo.task.tensors import named_tensors
from objectives import Task

# Their backward divides by the gaps between eigenvalues.
_GAPS = ("linalg_eigh", "linalg_eig", "linalg_svd", "eigh", "svd")
_ADVICE = "eigh_signal and eigh_broadened of models.linalg have a finite gradient"


def probe(
    task: Task, batch: Any, *, device: torch.device, precision: str, rng: Mapping[str, Tensor]
) -> Probed:
    """Run a batch once in fp32, and where that is clean in the precision trained in.

    There the loss is scaled by `SCALE_FLOOR`: what a scaler could cure is no divergence.

    Args:
        rng: The random state that the step started from, as `random_state` gives it.
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
                # Not autograd.grad, which reentrant checkpoints refuse.
                scaled = loss * (SCALE_FLOOR if precision == "fp16" else 1.0)
                scaled.backward()  # type: ignore[no-untyped-call]
                # By group, as the counters look: a norm overflows before its elements do.
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
    task: Task, batch: Any, *, device: torch.device, precision: str, rng: Mapping[str, Tensor]
) -> Evidence:
    """The evidence on a batch that is not finite.

    What is named is the first finding of fp32, or, where that is clean, of `precision`.
    """
    looks: dict[str, _Look] = {}
    for name in dict.fromkeys(("fp32", precision, "fp64")):
        with undisturbed(task, device, rng):
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
    """The evidence on a metric that is not finite; validates as the caller has prepared it."""
    states = _states(task)
    trace = Trace(modules=task.modules, named={id(t): name for name, t in states.items()})
    with trace, suppress(Exception):
        task.validate()
    found = _made_by(trace.last, states) if trace.last is not None else Evidence()
    return found if found.handed_in is not None else replace(found, direction="validation")


class _Look(NamedTuple):
    """What one watched pass over a batch gave: figures, the first finding, decompositions."""

    figures: Pass
    found: Evidence | None
    spectra: tuple[Spectrum, ...]


def _look(task: Task, batch: Any, *, device: torch.device, precision: str) -> _Look:
    """One watched forward and, term by term, backward of a batch in one precision."""
    widened = Widened(trained(task)) if precision == "fp64" else None
    states = _states(task)
    named = {**named_tensors(batch), **states}
    trace = Trace(modules=task.modules, named={id(t): name for name, t in named.items()})
    width = "fp32" if widened else precision
    try:
        with widened or nullcontext(), trace:
            terms = loss_terms(task, batch, device=device, precision=width)
    except Exception as error:
        # Also where the user's code refuses float64: no evidence then, and no harm.
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
        # Of what is not finite there is nothing to learn backward, and eigh's may raise.
        if not (value.requires_grad and is_finite(value)):
            continue
        try:
            norms[name], found = gradients.of(name, value, trace)
        except Exception as error:
            # A decomposition that refuses its gradient, or a graph that runs once only.
            refused = _in_a_line(error)
            found = _refused(name, error)
        findings += [found] if found else []
    findings += [found for found in (_of_sum(total(terms)), gradients.of_sum()) if found]
    terms_here = {name: float(value.detach()) for name, value in values.items()}
    figures = Pass(terms=terms_here, grad_norms=norms, error=refused)
    return _Look(figures, findings[0] if findings else None, tuple(trace.spectra))


def _made_by(operation: Operation, states: Mapping[str, Tensor]) -> Evidence:
    """Where a non-finite result came from: an operation, or something that was handed in."""
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
    """A term that is not finite once it is weighted."""
    if made is None:
        found = Evidence(direction="forward")
    elif made.is_finite:
        found = Evidence(direction="forward", operation="the product with its weight")
    else:
        found = _made_by(made, states)
    return replace(found, term=name, kind=kind(value))


def _refused(term: str, error: Exception) -> Evidence | None:
    """A backward that refused its gradient, as that of a complex eigh does with a NaN."""
    if not (isinstance(error, RuntimeError) and is_matrix_refused(error)):
        return None
    name = str(error).partition("_backward")[0].rpartition(" ")[2]
    return Evidence(term=term, kind="NaN", direction="backward", operation=name)


def _of_sum(loss: Tensor) -> Evidence | None:
    if is_finite(loss):
        return None
    return Evidence(kind=kind(loss), direction="forward", operation="the sum of its terms")


def _states(task: Task) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that are trained first."""
    names = parameter_names(task)
    found: dict[str, Tensor] = {names[id(p)]: p for p in trained(task)}
    for key, module in task.modules.items():
        found |= {f"{key}.{name}": tensor for name, tensor in module.named_parameters()}
        found |= {f"{key}.{name}": tensor for name, tensor in module.named_buffers()}
    return found


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
