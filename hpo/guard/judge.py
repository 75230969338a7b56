"""Judge a trial in training: read the counters, probe, explain, and raise the verdict.

Border: raises `Divergence` with all evidence; the caller decides what becomes of the trial.
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
from hpo.task.random_state import random_state
from hpo.task.state import evaluating
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
    rng: Mapping[str, Any],
    elapsed_s: Callable[[], float],
) -> None:
    """Read the counters, and raise `Divergence` if the trial is to be pruned.

    Args:
        batch: The batch of the step just done.
        rng: The random state that the step started from.
        elapsed_s: Returns the wall time of the trial so far, summed over interruptions.
    """
    reading = counters.read(scale)
    if not (reading.is_suspect or reading.is_stalled):
        return
    how: dict[str, Any] = {"device": setting.device, "precision": setting.precision, "rng": rng}
    # The gradients have been used, and a probe in fp32 needs their memory.
    for parameter in trained(task):
        parameter.grad = None
    probed = None
    if reading.is_suspect:
        # A failed probe (out of memory, say) is no verdict: the scaler may still be searching.
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
        seconds=elapsed_s(),
    )


def judge_metric(
    task: Task,
    setting: Setting,
    *,
    value: float,
    step: int,
    counters: Counters | None = None,
    elapsed_s: Callable[[], float] = lambda: 0.0,
) -> None:
    """Raise `Divergence` if the metric of a validation is not finite.

    Args:
        counters: The trial's counters; None if a saved step is replayed.
        elapsed_s: Returns the wall time of the trial so far, summed over interruptions.
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
        seconds=elapsed_s(),
    )


def _tried(failing: str, work: Callable[[], T]) -> T | None:
    """Return the result of `work`; log an error and return None, as a verdict stands without it.

    The task's hooks run in it, and may raise anything.
    """
    try:
        return work()
    except KeyboardInterrupt:
        raise
    except BaseException:
        _logger.exception("%s", failing)
        return None


def _examined(examine: Callable[[], Evidence]) -> Evidence:
    return _tried("the divergence cannot be explained", examine) or Evidence()


def _packed(pack: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    return _tried("the step cannot be saved", pack)


def sentence(reason: str, evidence: Evidence, reading: Reading | None, precision: str) -> str:
    """Verdict in one sentence: term, parameter, operation, step, scale.

    Args:
        reading: None if the batch is not the one of the step in training.
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
