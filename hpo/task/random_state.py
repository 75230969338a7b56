"""Seed, save and restore the global random generators of Python, numpy and torch.

Border: the global ones. A generator that a task made for itself belongs into its `state_dict`.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

# numpy's legacy generator takes a seed of 32 bits.
_NUMPY_SEEDS = 1 << 32
# numpy's global generator, unless a trial replaced it.
_NUMPY = "MT19937"
_numpy: Any = np.random


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of all global generators for this device, at a few µs."""
    state: dict[str, Any] = {
        "cpu": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (_numpy.get_bit_generator(), np.random.get_state(legacy=False)),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def packed(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state as tensors, which a checkpoint holds.

    Of numpy's generators it holds the usual one alone; a trial that sets another keeps its state.
    """
    found = {name: state[name] for name in ("cpu", "cuda") if name in state}
    if "python" in state:
        version, words, gauss = state["python"]
        found["python"] = _packed([version, *words], gauss)
    _, legacy = state.get("numpy", (None, {}))
    if legacy.get("bit_generator") == _NUMPY:
        words = [*legacy["state"]["key"].tolist(), legacy["state"]["pos"]]
        found["numpy"] = _packed(words, legacy["gauss"] if legacy["has_gauss"] else None)
    return found


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Set the global generators to a state, packed or not; those that it lacks stay."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    if isinstance(state.get("python"), Tensor):
        version, *words, gauss = _unpacked(state["python"])
        random.setstate((version, tuple(words), gauss))
    elif "python" in state:
        random.setstate(state["python"])
    if isinstance(state.get("numpy"), Tensor):
        *keys, position, gauss = _unpacked(state["numpy"])
        has_gauss = gauss is not None
        key = np.array(keys, dtype=np.uint32)
        _set_numpy(np.random.MT19937(), (_NUMPY, key, position, int(has_gauss), gauss or 0.0))
    elif "numpy" in state:
        _set_numpy(*state["numpy"])


def _set_numpy(generator: Any, state: Any) -> None:
    """Set numpy's generator; one of another kind is replaced, as it takes no such state."""
    if type(_numpy.get_bit_generator()) is not type(generator):
        _numpy.set_bit_generator(generator)
    np.random.set_state(state)


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global generators on exit."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)


def _packed(words: list[int], gauss: float | None) -> Tensor:
    """Words of a generator, and its half of a pair of normal numbers, as one int64 tensor."""
    bits = struct.unpack("q", struct.pack("d", gauss or 0.0))[0]
    return torch.frombuffer(array("q", [*words, gauss is not None, bits]), dtype=torch.int64)


def _unpacked(packed: Tensor) -> list[Any]:
    *words, has_gauss, bits = packed.tolist()
    gauss = struct.unpack("d", struct.pack("q", bits))[0]
    return [*words, gauss if has_gauss else None]
