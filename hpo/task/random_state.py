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


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of all global generators for this device, as tensors, which a checkpoint holds."""
    state = {"cpu": torch.get_rng_state(), "python": _python_state()}
    legacy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    if legacy["bit_generator"] == _NUMPY:
        words = [*legacy["state"]["key"].tolist(), legacy["state"]["pos"]]
        state["numpy"] = _packed(words, legacy["gauss"] if legacy["has_gauss"] else None)
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the global generators to a saved state; those that an earlier version lacks stay."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    if "python" in state:
        version, *words, gauss = _unpacked(state["python"])
        random.setstate((version, tuple(words), gauss))
    if "numpy" in state:
        *keys, position, gauss = _unpacked(state["numpy"])
        has_gauss = gauss is not None
        np.random.set_state(
            (_NUMPY, np.array(keys, dtype=np.uint32), position, int(has_gauss), gauss or 0.0)
        )


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global generators on exit."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)


def _python_state() -> Tensor:
    version, words, gauss = random.getstate()
    return _packed([version, *words], gauss)


def _packed(words: list[int], gauss: float | None) -> Tensor:
    """Words of a generator, and its half of a pair of normal numbers, as one int64 tensor."""
    bits = struct.unpack("q", struct.pack("d", gauss or 0.0))[0]
    return torch.frombuffer(array("q", [*words, gauss is not None, bits]), dtype=torch.int64)


def _unpacked(packed: Tensor) -> list[Any]:
    *words, has_gauss, bits = packed.tolist()
    gauss = struct.unpack("d", struct.pack("q", bits))[0]
    return [*words, gauss if has_gauss else None]
