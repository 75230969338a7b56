"""Gradients of each loss term: norms by group, and the parameters where they are not finite.

Border: describes only; `forensics` decides what to search for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hpo.guard.evidence import Evidence
from hpo.guard.trace import Operation, Trace
from hpo.task.parameters import parameter_names, trained
from objectives import Task


class Gradients:
    """The gradients of each term, and their sum, by parameter."""

    def __init__(self, task: Task, leaves: list[Tensor]) -> None:
        self._task, self._leaves = task, leaves
        self._names = [parameter_names(task)[id(p)] for p in trained(task)]
        self._sums: list[Tensor | None] = [None] * len(leaves)

    def of(
        self, term: str, value: Tensor, trace: Trace
    ) -> tuple[dict[str, float], Evidence | None]:
        """Norms of a term's gradient by group, and the evidence on a non-finite one."""
        gradients, made = trace.backward(value, self._leaves)
        by_parameter = dict(zip(map(id, trained(self._task)), gradients, strict=True))
        norms = {}
        for group in self._task.groups:
            norms[group.name] = norm([by_parameter.get(id(p)) for p in group.parameters])
        for i, gradient in enumerate(gradients):
            if gradient is not None:
                known = self._sums[i]
                self._sums[i] = gradient if known is None else known + gradient
        found = self._not_finite(gradients)
        if found is None or made is None:
            return norms, found and replace(found, term=term)
        return norms, replace(at(made, found), term=term)

    def of_sum(self) -> Evidence | None:
        """Evidence on an overflow in the sum of the terms' gradients."""
        return self._not_finite(self._sums)

    def _not_finite(
        self, gradients: list[Tensor | None] | tuple[Tensor | None, ...]
    ) -> Evidence | None:
        bad = {
            name: gradient
            for name, gradient in zip(self._names, gradients, strict=True)
            if gradient is not None and not _is_bounded(gradient)
        }
        if not bad:
            return None
        first = next(iter(bad))
        return Evidence(
            kind=kind(bad[first]), direction="backward", parameter=first, parameters=tuple(bad)
        )


def norm(gradients: Sequence[Tensor | None]) -> float:
    """The norm of a group's gradient."""
    some = [gradient for gradient in gradients if gradient is not None]
    return float(nn.utils.get_total_norm(some)) if some else 0.0


def _is_bounded(gradient: Tensor) -> bool:
    """Return whether a parameter's gradient has a finite norm."""
    return bool(torch.isfinite(torch.linalg.vector_norm(gradient.detach())))


def kind(tensor: Tensor) -> str:
    """Kind of a non-finite tensor: 'NaN' or 'infinite'."""
    return "NaN" if torch.isnan(tensor.detach()).any() else "infinite"


def at(operation: Operation, found: Evidence) -> Evidence:
    """Add its operation to a finding; the engine's own cast before the loss gets a plain name."""
    if operation.where is None and operation.name == "to":
        return replace(found, operation="the cast to float32 before the loss")
    return replace(found, operation=operation.name, where=operation.where, module=operation.module)
