"""Replay a saved step on any machine: the verdict is computed afresh, not read from the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hpo.errors import ConfigurationError
from hpo.guard import forensics
from hpo.guard.evidence import Divergence, Evidence
from hpo.guard.judge import judge_metric, sentence
from hpo.guard.saved_step import Setting, restore, with_tensors
from hpo.guard.verdict import SUSPECT_RUN, Reading, verdict
from hpo.task.random_state import set_random_state
from hpo.task.validation import validated
from objectives import Objective, Task

_UNKNOWN = Reading(
    step=0, run=SUSPECT_RUN, withheld=0, early=0, spikes=0, is_bad_loss=False, scale=1.0
)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """Result of a replayed step; reason None means benign. `step` counts from 1."""

    about: Mapping[str, Any]
    precision: str
    step: int
    recorded: str
    reason: str | None
    detail: str
    evidence: Evidence

    def flat(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "trial": self.about["trial"],
            "objective": self.about["study"]["objective"],
            "params": dict(self.about["params"]),
            "precision": self.precision,
            "step": self.step,
            "recorded": self.recorded,
            "verdict": self.reason or "benign",
            "detail": self.detail,
            "evidence": self.evidence.flat(),
        }


def replay(
    saved: Mapping[str, Any],
    objective: Objective,
    *,
    device: torch.device,
    step: int | None = None,
) -> Replayed:
    """Replay a saved step and judge it afresh.

    Args:
        step: Step, counted from 1, whose batch replaces the saved one. The result shows whether
            the batch or the weights are to blame.

    Raises:
        ConfigurationError: The objective builds another network, or returns another kind of
            batch, than the saved one; or `step` is given for a verdict on a validation.
    """
    task = restore(saved, device, objective)
    setting = Setting(
        device=device,
        precision=saved["precision"],
        metric=saved["metric"],
        about=saved["about"],
    )
    reading = Reading(*saved["reading"])
    if saved["reason"] == "metric_nonfinite":
        if step is not None:
            raise ConfigurationError(
                "the verdict was about a validation, which takes no batch; leave "
                "--batch_of_step out"
            )
        return _replay_metric(task, setting, saved, reading)
    batch = task.batch((step or reading.step) - 1)
    if step is None:
        batch = with_tensors(batch, saved["batch"], device)
    how: dict[str, Any] = {"device": device, "precision": setting.precision, "rng": saved["rng"]}
    # Neither a run nor a scale is known for another batch, so the probe alone decides.
    known = reading if step is None else _UNKNOWN
    probed = forensics.probe(task, batch, **how) if known.is_suspect else None
    reason = verdict(known, probed)
    evidence = forensics.examine(task, batch, **how)
    known_reading = reading if step is None else None
    detail = "-" if reason is None else sentence(reason, evidence, known_reading, setting.precision)
    return Replayed(
        about=saved["about"],
        precision=setting.precision,
        step=reading.step,
        recorded=saved["reason"],
        reason=reason,
        detail=detail,
        evidence=evidence,
    )


def _replay_metric(
    task: Task, setting: Setting, saved: Mapping[str, Any], reading: Reading
) -> Replayed:
    set_random_state(saved["rng"], setting.device)
    found: Divergence | None = None
    value = validated(task, device=setting.device, metric=setting.metric)[setting.metric]
    try:
        judge_metric(task, setting, value=value, step=reading.step)
    except Divergence as diverged:
        found = diverged
    return Replayed(
        about=saved["about"],
        precision=setting.precision,
        step=reading.step,
        recorded=saved["reason"],
        reason=found.reason if found else None,
        detail=found.detail if found else "-",
        evidence=found.evidence if found else Evidence(),
    )
