"""Events of a training while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.refit.folder import CONFIRMATION
from hpo.refit.results import SeedResult


def label_of(name: str) -> str:
    """Return the label that users see for a seed, from the name of its file."""
    return "seed 0 in fp32" if name == CONFIRMATION else name.replace("_", " ")


@dataclass(kw_only=True)
class SeedProgress:
    """Progress of one seed.

    Attributes:
        name: Name of its file, without the ending.
        epochs: Number of epochs of the training.
        slot: Name of the slot that it trains on.
        state: `waiting`, `training`, `complete`, `diverged`, `stopped`, or `failed`.
        epoch: Last epoch that was validated.
        step: Last step that was reported.
        value: Metric of the last epoch.
        best: Best value of the metric so far.
        left_s: Estimated seconds to the end, at the pace so far; None before an epoch was timed.
    """

    name: str
    epochs: int
    slot: str = ""
    state: str = "waiting"
    epoch: int = 0
    step: int = 0
    value: float | None = None
    best: float | None = None
    left_s: float | None = None

    @property
    def label(self) -> str:
        """Label that users see."""
        return label_of(self.name)


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Progress of all seeds, and the seed that this event is about."""

    seeds: Sequence[SeedProgress]
    changed: SeedProgress


@dataclass(frozen=True, kw_only=True)
class SeedEnded:
    """A seed has ended, trained or diverged."""

    label: str
    result: SeedResult


@dataclass(frozen=True, kw_only=True)
class Remark:
    """A message to the user about a seed."""

    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class StoppingSeeds:
    """The training is stopping; every process writes its checkpoint."""


TrainEvent = TrainProgress | SeedEnded | Remark | StoppingSeeds
