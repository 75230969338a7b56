"""What a fleet tells while it works, and what its run came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hpo.machine.slots import Slot
    from hpo.study.study import OpenStudy
    from hpo.tickets.budget import Budget
    from hpo.tickets.leases import Lease


@dataclass(frozen=True, kw_only=True)
class Connected:
    """The database answers.

    Attributes:
        storage: Its URL, the password masked.
    """

    storage: str


@dataclass(frozen=True, kw_only=True)
class Starting:
    """The study is there, its budget stands, and workers are about to start.

    Attributes:
        budget: Of the study before this run.
        asked: What was given explicitly, by the fields of the study's configuration.
        smaller_sizes: Of the objective's problem, largest first.
        notes: What the user should know before it starts.
    """

    opened: OpenStudy
    budget: Budget
    slots: Sequence[Slot]
    checkpoints: Path
    logs: Path
    is_new: bool
    storage: str
    asked: Mapping[str, Any]
    smaller_sizes: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study is.

    Attributes:
        reasons: Pruned trials by their prune reason.
        ended: The trials that ended since the last report.
        seconds: Wall time of this run.
        left_s: About how long the rest will take; None as long as nobody knows.
        trial_s: About how long a trial takes.
    """

    budget: Budget
    leases: Sequence[Lease]
    best: FrozenTrial | None
    reasons: Mapping[str, int]
    ended: Sequence[FrozenTrial]
    seconds: float
    left_s: float | None
    trial_s: float | None


@dataclass(frozen=True, kw_only=True)
class WorkerEnded:
    """A worker process ended before the budget was spent; it is replaced."""

    slot: str
    code: int
    log: Path


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The fleet asked its workers to end."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """All trials have ended, and a worker still finds the objective's references."""


Event = Connected | Starting | Progress | WorkerEnded | Stopping | Finishing


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to.

    Attributes:
        diverged: The reason of each trial that the guard pruned, by its number.
        reasons: Pruned trials by their prune reason.
    """

    study: str
    budget: Budget
    reasons: Mapping[str, int]
    diverged: Mapping[int, str]
    best: FrozenTrial | None
    default_value: float | None
    references: Mapping[str, float]
    seconds: float
    is_interrupted: bool

    def flat(self) -> dict[str, Any]:
        """As plain data for JSON."""
        best = self.best
        return {
            **{name: value for name, value in vars(self).items() if name != "budget"},
            "budget": asdict(self.budget),
            "best": best and {"trial": best.number, "value": best.value, "params": best.params},
        }
