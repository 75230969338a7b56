"""Watch a computation operation by operation: where the first non-finite tensor came from.

`Trace` notes every torch function that runs under it: its name, its line in the user's code, the
module, which earlier operations it took its inputs from, and whether its result is finite. Going
back from a non-finite value along non-finite inputs ends at the operation that made it, so that a
masked branch or a −inf before a softmax is not blamed.
Border: knows nothing of tasks, terms or verdicts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from hpo.guard.evidence import Spectrum
from hpo.guard.spectra import DECOMPOSITIONS, spectrum

_TORCH = str(Path(torch.__file__).parent)
_OWN = f"{Path(__file__).parent.parent}{os.sep}"
# Attributes that are asked for all the time and are no results.
_PLAIN = ("shape", "dtype", "device", "ndim", "layout", "grad_fn", "requires_grad", "is_leaf")
# So many decompositions of a step are looked at, and so many of one line: a network that takes the
# same inverse at every layer is not to hide what its loss takes apart.
_SPECTRA, _SPECTRA_OF_A_LINE = 24, 2


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One torch function that ran.

    Attributes:
        name: As torch calls it: `sqrt`, `linalg_eigh`, `linear`.
        where: `file.py:12 in function`, the innermost line that is not torch's own.
        module: Dotted name of the module it ran in; None outside of all.
        is_finite: Whether all of its results are.
        is_nan: Whether a NaN is in them.
        inputs: The operations whose results it took.
        leaves: Non-finite tensors it took that no operation made: by name, where known.
    """

    name: str
    where: str | None
    module: str | None
    is_finite: bool
    is_nan: bool = False
    inputs: tuple[Operation, ...] = ()
    leaves: tuple[str, ...] = ()


@dataclass
class Trace(TorchFunctionMode):
    """The operations of the code that runs in this context.

    Attributes:
        modules: By name, to say which of them an operation ran in.
        named: What no operation makes, parameters and the batch, by `id`.
        spectra: Of what was decomposed.
        last: The last operation whose result is not finite, or that refused its input.
    """

    modules: Mapping[str, nn.Module]
    named: Mapping[int, str]
    spectra: list[Spectrum] = field(default_factory=list)
    last: Operation | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self._made: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._nodes: dict[Any, Operation] = {}
        self._path: list[str] = []
        self._hooks = ExitStack()
        self._names = {
            id(part): ".".join(filter(None, (key, name)))
            for key, module in self.modules.items()
            for name, part in module.named_modules()
        }

    def __enter__(self) -> Trace:
        def enter(module: nn.Module, _: Any) -> None:
            self._path.append(self._names.get(id(module), type(module).__name__))

        def leave(*_: Any) -> None:
            self._path.pop()

        hooks = nn.modules.module
        for handle in (
            hooks.register_module_forward_pre_hook(enter),
            hooks.register_module_forward_hook(leave, always_call=True),
        ):
            self._hooks.callback(handle.remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._hooks.close()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            # An attribute; of those that are tensors (T, real, ...) it is known by its own name.
            name = getattr(getattr(func, "__self__", None), "__name__", name)
            if name in _PLAIN:
                return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        earlier = self._operations(tensors)
        if name.removeprefix("linalg_") in DECOMPOSITIONS and tensors:
            self._keep_spectrum(name, tensors[0])
        leaves = self._bad_leaves(tensors)
        try:
            result = func(*args, **kwargs)
        except Exception:
            # The operation that refused its input: the end of the way back.
            self.last = self._operation(name, None, earlier, leaves)
            raise
        made = args[0] if name == "__setitem__" else result
        results = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        if results:
            operation = self._operation(name, results, earlier, leaves)
            self.last = self.last if operation.is_finite else operation
            for tensor in (*results, *_bases(name, results)):
                self._made[tensor] = operation
                if tensor.grad_fn is not None:
                    self._nodes[tensor.grad_fn] = operation
        return result

    def of(self, tensor: Tensor) -> Operation | None:
        """The operation that made a tensor."""
        found: Operation | None = self._made.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def _operation(
        self,
        name: str,
        results: Sequence[Tensor] | None,
        earlier: Sequence[Operation],
        leaves: tuple[str, ...],
    ) -> Operation:
        return Operation(
            name=name,
            where=_where(),
            module=self._path[-1] if self._path else None,
            is_finite=results is not None and all(map(is_finite, results)),
            is_nan=any(not is_finite(t) and bool(torch.isnan(t).any()) for t in results or ()),
            # A chain of finite ones is never walked; what is not kept is freed.
            inputs=tuple(op for op in earlier if not op.is_finite),
            leaves=leaves,
        )

    def _operations(self, tensors: Sequence[Tensor]) -> list[Operation]:
        return [self._made[tensor] for tensor in tensors if tensor in self._made]

    def _keep_spectrum(self, name: str, matrices: Tensor) -> None:
        """Look at what is decomposed, unless enough of this line, or of all, was looked at."""
        where = _where() or "-"
        seen = sum(one.where == where for one in self.spectra)
        if len(self.spectra) < _SPECTRA and seen < _SPECTRA_OF_A_LINE:
            found = spectrum(name, where, matrices)
            self.spectra += [found] if found else []

    def _bad_leaves(self, tensors: Sequence[Tensor]) -> tuple[str, ...]:
        leaves = [t for t in tensors if t not in self._made]
        return tuple(self.named.get(id(t), "") for t in leaves if not is_finite(t))

    def backward(
        self, value: Tensor, inputs: Sequence[Tensor]
    ) -> tuple[tuple[Tensor | None, ...], Operation | None]:
        """Gradients of a scalar, and the operation whose backward first left the finite ones."""
        culprit: list[Operation] = []

        def watch(node: Any, operation: Operation | None) -> Any:
            def hook(out: Sequence[Tensor | None], into: Sequence[Tensor | None]) -> None:
                if culprit or not _all_finite(into) or _all_finite(out):
                    return
                culprit.append(operation or _by_node(node))

            return node.register_hook(hook)

        handles = [watch(node, operation) for node, operation in self._graph(value)]
        try:
            gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
        return gradients, culprit[0] if culprit else None

    def _graph(self, value: Tensor) -> Iterator[tuple[Any, Operation | None]]:
        """Every node of a value's graph, and the operation that it is a part of."""
        waiting: list[tuple[Any, Operation | None]] = [(value.grad_fn, None)]
        seen = set()
        while waiting:
            node, consumer = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            # A function made of several nodes is known by its last, one of the user's by its class.
            is_own = isinstance(node, torch.autograd.function.BackwardCFunction)
            operation = self._nodes.get(node, _by_node(node) if is_own else consumer)
            yield node, operation
            waiting.extend((earlier, operation) for earlier, _ in node.next_functions)


def origin(operation: Operation) -> Operation:
    """The operation that made what is not finite in the result of another."""
    while operation.inputs:
        # A NaN comes of a NaN where there is one; an infinite input may be a mask beside it.
        of_nan = [earlier for earlier in operation.inputs if earlier.is_nan]
        operation = of_nan[0] if operation.is_nan and of_nan else operation.inputs[0]
    return operation


def is_finite(tensor: Tensor) -> bool:
    """Whether all of a tensor is finite; True for what cannot be otherwise."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.dtype is torch.complex32:
        tensor = torch.view_as_real(tensor)
    return bool(torch.isfinite(tensor.detach()).all())


def _all_finite(tensors: Sequence[Tensor | None]) -> bool:
    return all(tensor is None or is_finite(tensor) for tensor in tensors)


def _by_node(node: Any) -> Operation:
    """What is known of a node that no noted function made, for example a custom backward."""
    name = node.name().partition("Backward")[0]
    return Operation(name=name, where=None, module=None, is_finite=False)


def _bases(name: str, results: Sequence[Tensor]) -> list[Tensor]:
    """What was written into by way of a view of it."""
    is_in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return [t._base for t in results if is_in_place and t._base is not None]


def _where() -> str | None:
    """The innermost line that is not torch's; None where that is one of our own."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith(_TORCH):
            break
        frame = frame.f_back
    if frame.f_code.co_filename.startswith(_OWN):
        return None
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
