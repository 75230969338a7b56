"""Tensors in nested data: replace them, or list them by their paths."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.linalg import LinAlgError as LinAlgError  # type: ignore[attr-defined]


def map_tensors(tree: Any, change: Callable[[str, Tensor], Tensor], path: str = "") -> Any:
    """Copy a structure with every tensor replaced by `change(path, tensor)`.

    Walks mappings, sequences, named tuples and dataclasses; anything else stays as it is. A path
    reads `scenes.factor_BNK` or `0.x`.
    """

    def walk(key: object, value: Any) -> Any:
        return map_tensors(value, change, f"{path}.{key}" if path else str(key))

    if isinstance(tree, Tensor):
        return change(path, tree)
    if isinstance(tree, Mapping):
        return {key: walk(key, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(walk(key, getattr(tree, key)) for key in tree._fields))
    if isinstance(tree, list | tuple):
        return type(tree)(walk(key, value) for key, value in enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changed = copy.copy(tree)
        for field in dataclasses.fields(tree):
            # The dataclass may be frozen; setting its fields is safe, as the copy is ours alone.
            object.__setattr__(changed, field.name, walk(field.name, getattr(tree, field.name)))
        return changed
    return tree


def named_tensors(tree: Any) -> dict[str, Tensor]:
    """Every tensor of a structure by its path."""
    found: dict[str, Tensor] = {}

    def note(path: str, tensor: Tensor) -> Tensor:
        found[path] = tensor
        return tensor

    map_tensors(tree, note)
    return found
