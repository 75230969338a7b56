"""The committed task without torch: its space, the value of a configuration, a random one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from objectives import Choice, Float, Int, Space

EPOCHS = 12
SPACE: Space = {
    **{f"log{n}": Float(low=1e-5, high=1e-1, default=1e-3, log=True) for n in range(3)},
    **{f"float{n}": Float(low=-1.0, high=1.0, default=0.0) for n in range(5)},
    **{f"int{n}": Int(low=1, high=64, default=8) for n in range(2)},
    **{f"choice{n}": Choice(choices=("a", "b", "c"), default="a") for n in range(2)},
}


def drawn(rng: random.Random) -> dict[str, Any]:
    """A configuration drawn evenly from the space."""
    found: dict[str, Any] = {}
    for name, spec in SPACE.items():
        if isinstance(spec, Choice):
            found[name] = rng.choice(spec.choices)
        elif isinstance(spec, Int):
            found[name] = rng.randint(spec.low, spec.high)
        elif spec.log:
            found[name] = math.exp(rng.uniform(math.log(spec.low), math.log(spec.high)))
        else:
            found[name] = rng.uniform(spec.low, spec.high)
    return found


def badness(params: Mapping[str, Any]) -> float:
    """The share of a trial's value that its parameters decide, smallest within the space."""
    found = 0.0
    for name, value in params.items():
        if name.startswith("log"):
            found += (math.log10(value) + 3.0) ** 2 / 4
        elif name.startswith("float"):
            found += (value - 0.3) ** 2
        elif name.startswith("int"):
            found += ((value - 20) / 64) ** 2
        else:
            found += {"a": 0.2, "b": 0.0, "c": 0.4}[value]
    return found
