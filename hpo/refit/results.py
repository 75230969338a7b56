"""How each seed of a training ended, and the training as a whole.

Border: plain data; `folder` keeps it in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.files import finite


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """How a seed ended.

    Attributes:
        outcome: `complete`, or `diverged`.
        value: The metric of the last validation; None where it diverged.
        reason: Why it diverged, as a trial's `prune_reason`; and `detail`, in a sentence.
        seconds: Of its training, over interruptions.
        skipped: Steps withheld from the weights.
        file: Its weights; of a diverged one the step that shows it, if it could be kept.
        source: The hash of the objective's file that it was trained with, where known.
        rows: What each epoch measured.
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
        """As plain data, without its rows."""
        plain = {name: value for name, value in vars(self).items() if name != "rows"}
        metrics = finite(dict(self.metrics))
        return {**plain, "metrics": metrics, "file": self.file and self.file.name}


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        seeds: How each finished one ended.
        confirmation: Seed 0 in fp32; None where the precision is fp32, or it is not finished.
        mean: Of the metric over the complete seeds, and `std`, from two of them on.
        seconds: Of all seeds together, over interruptions.
        is_complete: Whether every seed has ended; if not, the same call goes on.
        is_interrupted: Whether that is because it was to stop.
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
        """The weights of the best seed."""
        return None if self.best_seed is None else self.folder / f"seed_{self.best_seed}.pt"

    @property
    def is_confirmed(self) -> bool | None:
        """Whether fp32 comes to the same, within two deviations over seeds; None if unknown."""
        zero = next((one for one in self.seeds if one.seed == 0), None)
        other = self.confirmation
        if zero is None or other is None or zero.value is None or self.std is None:
            return None
        return other.value is not None and abs(other.value - zero.value) <= 2 * self.std

    def flat(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            **vars(self),
            "folder": str(self.folder),
            "seeds": [one.flat() for one in self.seeds],
            "confirmation": self.confirmation and self.confirmation.flat(),
            "is_confirmed": self.is_confirmed,
        }
