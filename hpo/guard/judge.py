"""Judge a trial in training: read the counters, probe, explain, and raise the verdict.

Border: raises `Divergence` with all that is known; does not know what becomes of the trial then.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from hpo.guard import forensics, saved_step, verdict
from hpo.guard.counters import Counters
from hpo.guard.evidence import Divergence, Evidence
from hpo.guard.saved_step import Setting
from hpo.guard.verdict import Reading
from hpo.task.parameters import trained
from hpo.task.state import evaluating, random_state
from objectives import Task

_logger = logging.getLogger(__name__)
T = TypeVar("T")


def judge_step(
    task: Task,
    batch: Any,
    setting: Setting,
    *,
    counters: Counters,
    scale: Tensor,
    rng: Mapping[str, Tensor],
    seconds: float,
) -> None:
    """Read the counters, and raise `Divergence` if the trial is not worth going on with.

    Args:
        batch: Of the step just done.
        rng: The random state that it started from.
        seconds: Training time of the trial so far, over interruptions.
    """
    reading = counters.read(scale)
    if not (reading.is_suspect or reading.is_stalled):
        return
    how: dict[str, Any] = {"device": setting.device, "precision": setting.precision, "rng": rng}
    # They have been used, and a probe in fp32 needs the room.
    for parameter in trained(task):
        parameter.grad = None
    probed = None
    if reading.is_suspect:
        # A trial whose probe fails, for want of memory say, may well be searching its scale.
        probed = _tried("a batch cannot be probed", lambda: forensics.probe(task, batch, **how))
    reason = verdict.verdict(reading, probed)
    if reason is None:
        return
    evidence = _examined(lambda: forensics.examine(task, batch, **how))
    evidence = replace(evidence, scales=tuple(counters.history))
    raise Divergence(
        reason,
        sentence(reason, evidence, reading, setting.precision),
        evidence=evidence,
        saved=_packed(
            lambda: saved_step.pack(task, batch, setting, reason=reason, reading=reading, rng=rng)
        ),
        skipped=counters.withheld(),
        seconds=seconds,
    )


def judge_metric(
    task: Task,
    setting: Setting,
    *,
    value: float,
    step: int,
    counters: Counters | None = None,
    seconds: float = 0.0,
) -> None:
    """Raise `Divergence` if the metric of a validation is not finite.

    Args:
        counters: Of the trial; None where a saved step is judged again.
        seconds: Training time of the trial so far, over interruptions.
    """
    if math.isfinite(value):
        return
    rng = random_state(setting.device)
    with evaluating(task, setting.device):
        evidence = _examined(lambda: forensics.examine_validation(task))
    kind = "NaN" if math.isnan(value) else "infinite"
    history = () if counters is None else tuple(counters.history)
    evidence = replace(evidence, kind=kind, scales=history)
    reason = "metric_nonfinite"
    reading = Reading(
        step=step, run=0, withheld=0, early=0, spikes=0, is_bad_loss=False, scale=None
    )
    raise Divergence(
        reason,
        f"'{setting.metric}' is {value} after step {step}{evidence.origin()}",
        evidence=evidence,
        saved=_packed(
            lambda: saved_step.pack(task, None, setting, reason=reason, reading=reading, rng=rng)
        ),
        skipped=0 if counters is None else counters.withheld(),
        seconds=seconds,
    )


def _tried(failing: str, work: Callable[[], T]) -> T | None:
    """What comes of it, or None and a line in the log: a verdict stands without."""
    try:
        return work()
    except Exception:
        _logger.exception("%s", failing)
        return None


def _examined(examine: Callable[[], Evidence]) -> Evidence:
    return _tried("the divergence cannot be explained", examine) or Evidence()


def _packed(pack: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    return _tried("the step cannot be saved", pack)


def sentence(reason: str, evidence: Evidence, reading: Reading | None, precision: str) -> str:
    """The verdict in one sentence: term, parameter, operation, step, scale.

    Args:
        reading: None where the batch is not that of a step in training.
    """
    where = ""
    if reading is not None:
        scale = "no scaler" if reading.scale is None else f"scale {reading.scale:g}"
        where = f"{reading.run} steps in a row, last {reading.step}, {scale}; "
    if reason == "stalled" and reading is not None:
        taken = reading.step - reading.withheld
        what = (
            f"only {taken} of {reading.step} steps reached the weights"
            if reading.is_stalled
            else "steps are not finite, yet their batch alone is, in every precision"
        )
        last = f"; the last: {evidence.clause()}" if evidence.direction else ""
        return f"{what} ({where.removesuffix('; ')}{last})"
    if reason == "precision_range":
        advice = f"finite in fp32: {precision} cannot hold it at any loss scale"
    else:
        advice = "fp32 probe agrees"
        wide = evidence.passes.get("fp64")
        if wide is not None and wide.error is None:
            advice += ", float64 is finite" if wide.is_finite else " and so does float64"
    if evidence.advice:
        advice += f"; {evidence.advice}"
    unexplained = "a gradient" if reason == "grad_nonfinite" else "the loss or a gradient"
    what = evidence.clause() if evidence.direction else f"{unexplained} is not finite"
    return f"{what} ({where}{advice})"
