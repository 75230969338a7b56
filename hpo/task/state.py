"""Save and restore a task's modes, buffers and flags, and the state of random generators.

Border: independent of losses and verdicts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hpo.task.parameters import parameter_names
from hpo.task.random_state import kept_random_state, set_random_state
from objectives import Task


@contextmanager
def undisturbed(task: Task, device: torch.device, rng: Mapping[str, Any]) -> Iterator[None]:
    """Start from a random state; restore random state, buffers and the task's own state on exit.

    In anomaly mode autograd would raise at the first NaN, which is to be looked at here.
    """
    buffers = [
        (part, name, buffer, buffer.clone()) for part, name, buffer in _buffers(_parts(task))
    ]
    own = copy.deepcopy(task.state_dict())
    try:
        with kept_random_state(device), torch.autograd.set_detect_anomaly(False):
            set_random_state(rng, device)
            yield
    finally:
        with torch.no_grad():
            for part, name, buffer, value in buffers:
                part._buffers[name] = buffer.copy_(value)
        task.load_state_dict(own)


class MovingBuffers:
    """Buffers that a task's forward changes, restored if the step is withheld.

    A running mean that has seen one NaN stays NaN, even if the step is withheld. The first step
    compares every buffer to find those that change, with one synchronisation each. Later steps rely
    on version counters, which batch normalization does not advance. Constants are copied once.
    """

    def __init__(self, task: Task) -> None:
        self._parts = _parts(task)
        self._moving: set[tuple[int, str]] | None = None
        self._before: list[tuple[nn.Module, str, Tensor, int, Tensor | None]] = []

    def note(self) -> None:
        """Copy the buffers that the coming forward may change."""
        self._before = []
        for part, name, buffer in _buffers(self._parts):
            moves = self._moving is None or (id(part), name) in self._moving
            value = buffer.clone() if moves else None
            self._before.append((part, name, buffer, buffer._version, value))

    def put_back(self, withhold: Tensor) -> None:
        """Restore the buffers after a step that is withheld (`withhold` is 1)."""
        changed = set()
        for part, name, buffer, version, value in self._before:
            now = part._buffers[name]
            if now is None or not self._has_moved(part, name, buffer, version, value):
                continue
            changed.add((id(part), name))
            if value is not None and value.shape == now.shape:
                with torch.no_grad():
                    now.copy_(torch.where(withhold > 0, value, now))
        self._moving = (self._moving or set()) | changed
        self._before = []

    def _has_moved(
        self, part: nn.Module, name: str, buffer: Tensor, version: int, value: Tensor | None
    ) -> bool:
        now = part._buffers[name]
        if now is not buffer or buffer._version != version:
            return True
        if self._moving is None:
            return value is not None and not torch.equal(value, buffer)
        return (id(part), name) in self._moving


def _parts(task: Task) -> list[nn.Module]:
    """Every module of a task, once."""
    return list({part: None for module in task.modules.values() for part in module.modules()})


def _buffers(parts: Sequence[nn.Module]) -> list[tuple[nn.Module, str, Tensor]]:
    """Every buffer with the module that holds it and its name there."""
    return [
        (part, name, buffer)
        for part in parts
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]


@contextmanager
def evaluating(task: Task, device: torch.device) -> Iterator[None]:
    """Set evaluation mode, no gradient, no autocast; restore modes and random state on exit."""
    parts = _parts(task)
    modes = [part.training for part in parts]
    try:
        for module in task.modules.values():
            module.eval()
        with ExitStack() as stack:
            stack.enter_context(kept_random_state(device))
            stack.enter_context(torch.no_grad())
            # It is off for every device type: a task may train on a GPU and validate on the CPU.
            for kind in dict.fromkeys((device.type, "cpu", "cuda")):
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        # Modes go back part by part: train() on the whole would thaw a part frozen on purpose.
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def flags(task: Task) -> dict[str, Any]:
    """The parameters that learn and the modules in training mode at this moment."""
    names = parameter_names(task)
    every = {id(p): p for module in task.modules.values() for p in module.parameters()}
    every |= {id(p): p for group in task.groups for p in group.parameters}
    return {
        "requires_grad": {names[key]: p.requires_grad for key, p in every.items()},
        "training": {name: part.training for name, part in _named_parts(task)},
    }


def set_flags(task: Task, state: Mapping[str, Any]) -> None:
    """Set what a task trains, as `flags` returned it; a name that is missing stays as it is."""
    names, learns = parameter_names(task), state.get("requires_grad", {})
    every = [p for module in task.modules.values() for p in module.parameters()]
    for parameter in (*every, *(p for group in task.groups for p in group.parameters)):
        parameter.requires_grad_(learns.get(names[id(parameter)], parameter.requires_grad))
    modes = state.get("training", {})
    for name, part in _named_parts(task):
        part.training = modes.get(name, part.training)


def _named_parts(task: Task) -> list[tuple[str, nn.Module]]:
    return [
        (f"{key}.{name}" if name else key, part)
        for key, module in task.modules.items()
        for name, part in module.named_modules()
    ]
