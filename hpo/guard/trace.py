"""Trace a computation by operation to find where the first non-finite tensor came from.

`Trace` records every torch function that runs under it: its name, its line in the user's code, the
module, the earlier operations that made its inputs, and whether its result is finite. Going back
from a non-finite value along non-finite inputs ends at the operation that made it. A masked branch
or a −inf before a softmax is therefore not blamed.

Border: independent of tasks, loss terms and verdicts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
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
from hpo.task.parameters import plain_name

_TORCH = str(Path(torch.__file__).parent)
_OWN = f"{Path(__file__).parent.parent}{os.sep}"
# These attributes are read all the time and are no results, so they are not recorded.
_PLAIN = ("shape", "dtype", "device", "ndim", "layout", "grad_fn", "requires_grad", "is_leaf")
# At most 24 decompositions of a step are analysed, and at most 2 of one line: a network that takes
# the same inverse at every layer must not crowd out the decompositions in its loss.
_SPECTRA, _SPECTRA_OF_A_LINE = 24, 2


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One torch function that ran.

    Attributes:
        name: Torch's name for it: `sqrt`, `linalg_eigh`, `linear`.
        where: `file.py:12 in function`, the innermost line outside torch; None inside `hpo`.
        module: Dotted name of the module that it ran in; None outside of any.
        is_finite: True if all of its results are finite.
        is_nan: True if a result holds a NaN.
        inputs: The operations that made its non-finite inputs.
        leaves: Names of its non-finite inputs that no operation made; '' for an unknown name.
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
        modules: Modules by name, to record which of them an operation ran in.
        named: Names, by `id`, of the tensors that no operation makes: parameters and the batch.
        spectra: Spectra of the matrices that were decomposed.
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
            id(part): plain_name(".".join(filter(None, (key, name))))
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
            # This reads an attribute; one that gives a tensor (T, real, ...) goes by its own name.
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
            # The operation refused its input, so the way back to the origin starts here.
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
        """The operation that made a tensor; None if unknown."""
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
            # A chain of finite operations is never walked; leaving it out frees its memory.
            inputs=tuple(op for op in earlier if not op.is_finite),
            leaves=leaves,
        )

    def _operations(self, tensors: Sequence[Tensor]) -> list[Operation]:
        return [self._made[tensor] for tensor in tensors if tensor in self._made]

    def _keep_spectrum(self, name: str, matrices: Tensor) -> None:
        """Analyse a decomposition's input, unless its line or the trace has reached its limit."""
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
        """Gradients of a scalar, and the operation whose backward first made a non-finite one."""
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
        """Nodes of a value's graph, each with the operation that it belongs to."""
        waiting: list[tuple[Any, Operation | None]] = [(value.grad_fn, None)]
        seen = set()
        while waiting:
            node, consumer = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            # A function of several nodes goes by its last node, a user's own by its class.
            is_own = isinstance(node, torch.autograd.function.BackwardCFunction)
            operation = self._nodes.get(node, _by_node(node) if is_own else consumer)
            yield node, operation
            waiting.extend((earlier, operation) for earlier, _ in node.next_functions)


def uncompiled() -> AbstractContextManager[Any]:
    """Run what `torch.compile` compiled as plain Python, where a `Trace` sees each operation.

    Under a mode, torch would compile the mode's own code too, for 20 s and a page of warnings.
    """
    # It is loaded once anything was compiled, and its import takes a second.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def origin(operation: Operation) -> Operation:
    """The operation that made the non-finite values in the result of another."""
    while operation.inputs:
        # A NaN is traced to a NaN input if there is one: an infinite input may be a mask.
        of_nan = [earlier for earlier in operation.inputs if earlier.is_nan]
        operation = of_nan[0] if operation.is_nan and of_nan else operation.inputs[0]
    return operation


def is_finite(tensor: Tensor) -> bool:
    """Return whether all of a tensor is finite; True for dtypes without infinities."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.dtype is torch.complex32:
        tensor = torch.view_as_real(tensor)
    return bool(torch.isfinite(tensor.detach()).all())


def _all_finite(tensors: Sequence[Tensor | None]) -> bool:
    return all(tensor is None or is_finite(tensor) for tensor in tensors)


def _by_node(node: Any) -> Operation:
    """Operation of a node that no recorded function made, for example a custom backward."""
    name = node.name().partition("Backward")[0]
    return Operation(name=name, where=None, module=None, is_finite=False)


def _bases(name: str, results: Sequence[Tensor]) -> list[Tensor]:
    """Tensors that an in-place operation wrote into through a view."""
    is_in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return [t._base for t in results if is_in_place and t._base is not None]


def _where() -> str | None:
    """Innermost line outside torch; None if that line is in `hpo`."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith(_TORCH):
            break
        frame = frame.f_back
    if frame.f_code.co_filename.startswith(_OWN):
        return None
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
