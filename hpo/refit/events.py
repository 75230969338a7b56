"""Events of a training while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.refit.folder import CONFIRMATION
from hpo.refit.results import SeedResult


def label_of(name: str) -> str:
    """What people call a seed, by the name of its file."""
    return "seed 0 in fp32" if name == CONFIRMATION else name.replace("_", " ")


@dataclass(kw_only=True)
class SeedProgress:
    """How a seed stands.

    Attributes:
        name: Of its file, without the ending.
        state: `waiting`, `training`, `complete`, `diverged`, `stopped`, or `failed`.
        best: The best value of the metric up to now.
        left_s: As long as the epochs that were seen took; None before the first.
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
        """What people call it."""
        return label_of(self.name)


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """All seeds, and which of them this event is about."""

    seeds: Sequence[SeedProgress]
    changed: SeedProgress


@dataclass(frozen=True, kw_only=True)
class SeedEnded:
    """A seed is finished."""

    label: str
    result: SeedResult


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something that the user should know of a seed."""

    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class StoppingSeeds:
    """It was interrupted; every process writes its checkpoint."""


TrainEvent = TrainProgress | SeedEnded | Remark | StoppingSeeds
