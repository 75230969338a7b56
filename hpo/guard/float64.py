"""Run code that was written for float32 in float64, without changing its tensors.

Border: independent of tasks and loss terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

WIDER = {
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex32: torch.complex128,
}
# Attributes of a tensor that are views of it, through which gradients pass.
_VIEWS = frozenset({"T", "mT", "H", "mH", "real", "imag"})


class Widened(TorchFunctionMode):
    """Mode that runs every torch function in float64 and complex128; its inputs stay unchanged.

    Inputs are widened at each call. Converting the modules instead would miss constants in the
    user's code, which would then meet float64 as float32.

    Attributes:
        leaves: Float64 stand-ins for the parameters, to differentiate with respect to.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__()
        self.leaves = [p.detach().double().requires_grad_(p.requires_grad) for p in parameters]
        self._leaf = {id(p): leaf for p, leaf in zip(parameters, self.leaves, strict=True)}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            if getattr(getattr(func, "__self__", None), "__name__", "") in _VIEWS:
                # `weight.mT` of a parameter must be that of its stand-in, or it gets no gradient.
                args = (self._leaf.get(id(args[0]), args[0]), *args[1:])
            found = func(*args, **kwargs)
            return WIDER.get(found, found) if isinstance(found, torch.dtype) else found
        if name in ("float", "half", "bfloat16"):
            return self._widen(args[0]).double()
        is_in_place = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
        if is_in_place or "out" in kwargs:
            # The tensor that is written into keeps its dtype, so the inputs are cast to it.
            fit = _narrow_to(args[0].dtype)
            return func(args[0], *tree_map(fit, args[1:]), **tree_map(fit, kwargs))
        return func(*tree_map(self._widen, args), **tree_map(self._widen, kwargs))

    def _widen(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.dtype):
            return WIDER.get(leaf, leaf)
        if isinstance(leaf, Tensor):
            leaf = self._leaf.get(id(leaf), leaf)
            return leaf.to(WIDER[leaf.dtype]) if leaf.dtype in WIDER else leaf
        return leaf


def _narrow_to(width: torch.dtype) -> Callable[[Any], Any]:
    def fit(leaf: Any) -> Any:
        is_number = isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
        if is_number and leaf.is_complex() == width.is_complex:
            return leaf.to(width)
        return leaf

    return fit
