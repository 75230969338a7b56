"""What runs in which dtype: the forward under autocast, the loss in fp32 on everything.

Border: no optimizer, no verdict; the one forward that training, probes and tests share.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from objectives import Task, Term

Precision = Literal["fp16", "bf16", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


def to_full(tree: Any) -> Any:
    """The same structure with every floating tensor as float32 and complex one as complex64.

    Walks mappings, sequences, named tuples and dataclasses; anything else stays what it is. No
    decomposition exists in half precision, so a loss must not depend on what promotion gives.
    """
    if isinstance(tree, Tensor):
        if tree.is_complex():
            return tree.to(torch.complex64)
        return tree.to(torch.float32) if tree.is_floating_point() else tree
    if isinstance(tree, Mapping):
        return {key: to_full(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(to_full, tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map(to_full, tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        full = copy.copy(tree)
        for field in dataclasses.fields(tree):
            # Also where the dataclass is frozen: the copy is ours alone.
            object.__setattr__(full, field.name, to_full(getattr(tree, field.name)))
        return full
    return tree


def loss_terms(task: Task, batch: Any, *, device: torch.device, precision: str) -> dict[str, Term]:
    """Forward in the given precision, then the loss in fp32 on outputs and labels."""
    half = _AUTOCAST.get(precision)
    with torch.autocast(device.type, dtype=half, enabled=half is not None):
        outputs = task.forward(batch)
    # Also where our own autocast is off: a caller's may be on.
    with torch.autocast(device.type, enabled=False):
        return dict(task.loss(to_full(outputs), to_full(batch)))


def total(terms: Mapping[str, Term]) -> Tensor:
    """The weighted sum of the terms, a scalar."""
    return torch.stack([term.weight * term.value for term in terms.values()]).sum()
