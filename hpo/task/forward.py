"""Forward and loss in their dtypes: the forward under autocast, the loss in fp32.

Border: no optimizer, no verdict; training, probes and tests share this one forward.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.linalg import LinAlgError as LinAlgError  # type: ignore[attr-defined]

from hpo.errors import ObjectiveError
from hpo.task.tensors import map_tensors
from objectives import Task, Term

Precision = Literal["fp16", "bf16", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# The errors of torch's decomposition backwards begin like the first; the other is anomaly mode's.
_REFUSED = re.compile(
    r"\b(linalg_\w+|svd|eigh?)_backward: |Function '\w+' returned nan values in its \d+th output"
)
_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


def is_matrix_refused(error: RuntimeError) -> bool:
    """Return whether a decomposition refused its matrix, forward or backward, mostly for a NaN.

    So does every backward for a NaN in autograd's anomaly mode. The backward of a complex eigh or
    svd raises a plain RuntimeError if the loss seems to depend on the phase of its vectors. That
    check has an absolute tolerance: a NaN fails it, and so does a gradient magnified by a loss
    scale of 65,536.
    """
    return isinstance(error, LinAlgError) or _REFUSED.search(str(error)) is not None


def wider(precision: str, device: torch.device) -> str | None:
    """The next wider precision that the hardware has; None above fp32.

    bf16 has fp32's range. Every CPU supports it under autocast, at about fp32's speed.
    """
    if precision == "fp16":
        has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if has_bf16 else "fp32"
    return "fp32" if precision == "bf16" else None


def to_full(tree: Any) -> Any:
    """Cast every floating tensor of a structure to float32, every complex one to complex64.

    No decomposition exists in half precision, so a loss must not depend on type promotion.
    """

    def full(_: str, tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(torch.complex64)
        return tensor.to(torch.float32) if tensor.is_floating_point() else tensor

    return map_tensors(tree, full)


def loss_terms(task: Task, batch: Any, *, device: torch.device, precision: str) -> dict[str, Term]:
    """Run the forward in the given precision, then the loss in fp32 on outputs and labels."""
    half = _AUTOCAST.get(precision)
    with torch.autocast(device.type, dtype=half, enabled=half is not None):
        outputs = task.forward(batch)
    # A caller's autocast may be on even if our own is off.
    with torch.autocast(device.type, enabled=False):
        terms = task.loss(to_full(outputs), to_full(batch))
    if not isinstance(terms, Mapping):
        raise ObjectiveError(
            f"loss() returned {type(terms).__name__}; a mapping is wanted, for example "
            "{'misfit': Term(value)}"
        )
    return dict(terms)


def total(terms: Mapping[str, Term]) -> Tensor:
    """Weighted sum of the terms, a scalar."""
    return torch.stack([term.weight * term.value for term in terms.values()]).sum()
