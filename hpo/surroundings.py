"""What a look at a task must leave as it was: modes, buffers, the state of random generators.

Border: puts things back; knows nothing of losses or verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from objectives import Task


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's own generators for this device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put torch's own generators back to a state."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@contextmanager
def undisturbed(task: Task, device: torch.device, rng: Mapping[str, Tensor]) -> Iterator[None]:
    """Start from a random state; put random state and buffers back afterwards."""
    buffers = [b for module in task.modules.values() for b in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            set_random_state(rng, device)
            yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


@contextmanager
def evaluating(task: Task, device: torch.device) -> Iterator[None]:
    """Evaluation mode, no gradient, no autocast; modes and random state are put back."""
    parts = [part for module in task.modules.values() for part in module.modules()]
    modes = [part.training for part in parts]
    devices = [device] if device.type == "cuda" else []
    try:
        for module in task.modules.values():
            module.eval()
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield
    finally:
        # One by one: train() on the whole would thaw a part that was frozen on purpose.
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
