"""Multiply-adds of what runs under it, by dtype: which share of a forward runs in half precision.

Every matrix product, convolution and attention of torch is counted as it is dispatched, so the
count is of what ran and not of what was written. Elementwise operations do not count.

Shapes: B batch, H heads, T tokens, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

HALF = (torch.float16, torch.bfloat16)


class Products(TorchDispatchMode):
    """Counts by the dtype of the first operand; a complex multiply-add is four real ones."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_dtype: dict[torch.dtype, float] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator, and count it."""
        given = dict(kwargs or {})
        out = func(*args, **given)
        packet: Any = func._overloadpacket  # type: ignore[attr-defined]
        count = None
        if "scaled_dot_product" in str(packet):
            query_BHTD, key_BHTD = args[:2]
            count = 4.0 * query_BHTD.numel() * key_BHTD.shape[-2]
        elif packet in flop_registry:
            count = float(flop_registry[packet](*args, **given, out_val=out))
        if count is not None:
            dtype = next(x.dtype for x in args if isinstance(x, torch.Tensor) and x.ndim > 1)
            count *= 4 if dtype.is_complex else 1
            self.by_dtype[dtype] = self.by_dtype.get(dtype, 0.0) + count
        return out

    @property
    def half_share(self) -> float:
        """Share of the multiply-adds in half precision, 0 if there were none."""
        total = sum(self.by_dtype.values())
        return sum(self.by_dtype.get(dtype, 0.0) for dtype in HALF) / total if total else 0.0
