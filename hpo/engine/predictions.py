"""Predictions for some validation samples, made without any effect on training.

They run in evaluation and inference mode, without autocast on any device; random state and modes
are restored. A trial's weights are the same to the bit with and without them.

Border: returns samples as plain data; `database.records` stores them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hpo.engine.reports import Sample
from hpo.files import finite
from hpo.task.raised import described, storable
from hpo.task.state import evaluating
from objectives import Prediction, Task

# Positions take 0.7 kB and grids 2 kB; a far larger sample cannot be read by eye.
_MOST_BYTES = 64 << 10


def predicted(task: Task, samples: range, device: torch.device) -> list[Sample]:
    """Predict the samples that the task has; a failed one holds its error."""
    if type(task).predict is Task.predict or not samples:
        return []
    with evaluating(task, device), torch.inference_mode():
        try:
            return _asked(task, samples)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # One bad sample fails the whole call, so each is tried alone.
            found: list[Sample] = []
            for sample in samples:
                one = _one(task, sample)
                if one is None:
                    break
                found.append(one)
            return found


def _one(task: Task, sample: int) -> Sample | None:
    """Predict one sample, or catch its error; None if the task has no such sample."""
    started_at = time.perf_counter()
    try:
        found = _asked(task, range(sample, sample + 1))
        return found[0] if found else None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Sample(
            sample=sample,
            kind="error",
            latency_s=time.perf_counter() - started_at,
            error=described(error),
        )


def _asked(task: Task, samples: range) -> list[Sample]:
    started_at = time.perf_counter()
    found = task.predict(samples)
    latency_s = (time.perf_counter() - started_at) / max(1, len(found))
    # The task may have fewer samples than requested.
    return [_sample(number, one, latency_s) for number, one in zip(samples, found, strict=False)]


def _sample(number: int, given: Prediction, latency_s: float) -> Sample:
    if not isinstance(given, Prediction):
        raise TypeError(f"predict() gave a {type(given).__name__}; write Prediction(...)")
    parts = {name: plain(getattr(given, name), name) for name in ("input", "target", "prediction")}
    size = len(json.dumps(parts))
    if size > _MOST_BYTES:
        raise ValueError(
            f"a sample of {size // 1024} kB is not kept ({_MOST_BYTES // 1024} kB at most)"
        )
    return Sample(
        sample=number,
        kind=storable(str(given.kind)),
        latency_s=latency_s,
        score=float(given.score),
        **parts,
    )


def plain(value: Any, name: str) -> Any:
    """Convert a value to JSON's types: tensors to lists, non-finite numbers to strings.

    Raises:
        TypeError: The value holds something that JSON cannot represent.
    """
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        return plain(value.tolist(), name)
    if isinstance(value, Mapping):
        return {storable(str(key)): plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item, name) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return finite(value, names=True)
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(f"{name} holds a {type(value).__name__}; keep numbers, texts, lists, tensors")
