"""Results of a training: of each seed, and of all seeds together.

Border: plain data; `folder` keeps it in files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.files import finite


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """The result of one seed.

    Attributes:
        outcome: `complete` or `diverged`.
        seconds: Training time over all interruptions.
        skipped: Steps withheld from the weights.
        value: Metric of the last validation; None if the seed diverged.
        metrics: All metrics of the last validation.
        reason: Reason of the divergence, as in a trial's `prune_reason`.
        detail: The reason in a sentence.
        file: File of the weights; if the seed diverged, of the step that shows it, where kept.
        source: Hash of the objective's file that it was trained with, where known.
        rows: Figures of each epoch.
    """

    seed: int
    precision: str
    outcome: str
    seconds: float
    skipped: int
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    detail: str | None = None
    file: Path | None = None
    source: str | None = None
    rows: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    def flat(self) -> dict[str, Any]:
        """Return plain data for JSON, without the rows."""
        plain = {name: value for name, value in vars(self).items() if name != "rows"}
        metrics = finite(dict(self.metrics))
        return {**plain, "metrics": metrics, "file": self.file and self.file.name}


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        seeds: Results of the finished seeds.
        confirmation: Result of seed 0 in fp32; None if the precision is fp32, or it has not ended.
        mean: Mean of the metric over the complete seeds; None without one.
        std: Sample standard deviation of the same; None with fewer than two.
        best_seed: Number of the best complete seed; None without one.
        seconds: Training time of all seeds together, over all interruptions.
        is_complete: True if every seed has ended; if not, the same call goes on.
        is_interrupted: True if the training was stopped before its end.
    """

    folder: Path
    study: str | None
    trial: int | None
    metric: str
    direction: str
    precision: str
    epochs: int
    seeds: Sequence[SeedResult]
    confirmation: SeedResult | None
    mean: float | None
    std: float | None
    best_seed: int | None
    seconds: float
    is_complete: bool
    is_interrupted: bool = False

    @property
    def file(self) -> Path | None:
        """File of the best seed's weights; None without a complete seed."""
        return None if self.best_seed is None else self.folder / f"seed_{self.best_seed}.pt"

    @property
    def is_confirmed(self) -> bool | None:
        """True if seed 0 in fp32 agrees within two deviations over seeds; None if unknown."""
        zero = next((one for one in self.seeds if one.seed == 0), None)
        other = self.confirmation
        if zero is None or other is None or zero.value is None or self.std is None:
            return None
        return other.value is not None and abs(other.value - zero.value) <= 2 * self.std

    def flat(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            **vars(self),
            "folder": str(self.folder),
            "seeds": [one.flat() for one in self.seeds],
            "confirmation": self.confirmation and self.confirmation.flat(),
            "is_confirmed": self.is_confirmed,
        }
