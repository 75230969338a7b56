"""Keep torch's compiler out of a process until something is compiled there.

torch imports `torch._dynamo`, and sympy with it, when the first optimizer is made and stepped: 800
modules for 0.85 s of CPU. All that the optimizers ask of it are marks (`graph_break`, `disable`)
that mean something to the compiler alone. After `defer` they leave the marks out while the compiler
is not imported, and from its import on, as by `torch.compile`, each call is torch's own again.

Border: optimizers that come with torch. One of an objective's own, derived from `Optimizer` with
torch's decorator around its step, imports the compiler as before. What is not found under the names
of another torch is left alone, and is only slower.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from types import FunctionType
from typing import Any

_COMPILER = "torch._dynamo"
# torch keeps the marked function of a function under this name, once it was called.
_MARKED = "__dynamo_disable"
_STEP = "_use_grad_for_differentiable.<locals>._use_grad"
_METHOD = "_disable_dynamo.<locals>.inner"

_is_deferred = False
_unmarked: list[FunctionType] = []


class _Watch(MetaPathFinder):
    """A finder that finds nothing, and hears when the compiler is about to be imported."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> None:
        if fullname == _COMPILER:
            _give_back()


def defer() -> None:
    """Have the optimizers of this process do without the compiler until it is imported."""
    global _is_deferred
    if _is_deferred or _COMPILER in sys.modules:
        return
    import torch

    for method in vars(torch.optim.Optimizer).values():
        if _is_made_by(method, _METHOD) and not hasattr(method.__wrapped__, _MARKED):
            setattr(method.__wrapped__, _MARKED, method.__wrapped__)
            _unmarked.append(method.__wrapped__)
    for optimizer in vars(torch.optim).values():
        step = vars(optimizer).get("step") if isinstance(optimizer, type) else None
        if step is not None and _is_made_by(step, _STEP):
            optimizer.step = _without_marks(step)
    _is_deferred = True
    # It stays there: a list of importers that changes between two trials would look like theirs.
    sys.meta_path.insert(0, _Watch())


def _is_made_by(found: object, name: str) -> bool:
    return isinstance(found, FunctionType) and found.__code__.co_qualname == name


def _without_marks(step: Any) -> Callable[..., Any]:
    """torch's step of an optimizer, with the grad mode that it sets and without its marks."""
    import torch

    inner = step.__wrapped__

    @functools.wraps(inner)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        if not _is_deferred:
            return step(*args, **kwargs)
        before = torch.is_grad_enabled()
        try:
            torch.set_grad_enabled(args[0].defaults["differentiable"])
            return inner(*args, **kwargs)
        finally:
            torch.set_grad_enabled(before)

    return stepped


def _give_back() -> None:
    """Have each call be torch's own from here on."""
    global _is_deferred
    _is_deferred = False
    while _unmarked:
        delattr(_unmarked.pop(), _MARKED)
