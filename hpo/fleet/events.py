"""The events of a running fleet, and the result of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.tickets.spent import Spent

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hpo.machine.slots import Slot
    from hpo.study.study import OpenStudy
    from hpo.tickets.budget import Budget
    from hpo.tickets.leases import Lease


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The run waits for GPUs or hosts, or goes on with fewer.

    Attributes:
        what: A sentence on what it lacks.
    """

    what: str


@dataclass(frozen=True, kw_only=True)
class Connected:
    """The database has answered.

    Attributes:
        storage: Its URL with the password masked.
    """

    storage: str


@dataclass(frozen=True, kw_only=True)
class Looking:
    """The first worker builds the default configuration, before a study is created or changed."""

    objective: str


@dataclass(frozen=True, kw_only=True)
class Starting:
    """The study and its budget are ready, and workers are about to start.

    Attributes:
        budget: The study's budget before this run starts workers.
        asked: Explicitly given values, by fields of the study's configuration.
        smaller_sizes: Smaller sizes of the objective's problem, largest first.
        chosen: The options that may be left to the objective: their values, and why.
        notes: Remarks for the user before the start.
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
    chosen: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a study.

    Attributes:
        reasons: Numbers of pruned trials by prune reason.
        hopeless: Sentences on the values with which every trial fails, by value.
        ended: The trials that ended since the last event.
        workers: Workers that were started and have not ended.
        waiting: Those of them for which a cluster has no place yet.
        seconds: Wall time of this run.
        left_s: Estimated wall time of the remaining trials; None without an estimate.
        trial_s: Estimated wall time of a trial; None without an estimate.
        spent: Hours and GPU hours that the study has taken, over all runs.
        paused: The study's pause in a sentence; None without one.
    """

    budget: Budget
    leases: Sequence[Lease]
    best: FrozenTrial | None
    reasons: Mapping[str, int]
    hopeless: Mapping[str, str]
    ended: Sequence[FrozenTrial]
    workers: int
    waiting: int
    seconds: float
    left_s: float | None
    trial_s: float | None
    spent: Spent = field(default_factory=Spent)
    paused: str | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerEnded:
    """A worker process ended with an error before the budget was spent; it is replaced.

    Attributes:
        code: Its exit code, or the negative number of a signal from outside.
        reason: The last line of its log.
        is_retired: True if no worker is started on its slot any more.
    """

    slot: str
    code: int
    log: Path
    reason: str = ""
    is_retired: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkerLeft:
    """A worker was drained and has left; no other is started on its slot."""

    slot: str


@dataclass(frozen=True, kw_only=True)
class Grown:
    """The study has more trials, because another program enqueued some and none were free.

    Attributes:
        added: Number of trials that were added.
        total: Number of trials now.
    """

    added: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The fleet asks its workers to stop."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class BudgetSpent:
    """The study's hours are spent: running trials end, and no other begins.

    Attributes:
        sentence: What was reached, and what goes on.
    """

    sentence: str


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """All trials have ended, and a worker still computes the objective's references."""


Event = (
    Waiting
    | Connected
    | Looking
    | Starting
    | Progress
    | WorkerEnded
    | WorkerLeft
    | Grown
    | BudgetSpent
    | Stopping
    | Finishing
)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a run.

    Attributes:
        reasons: Numbers of pruned trials by prune reason.
        diverged: Reasons of the trials that the guard pruned, by trial number.
        hopeless: Values with which every trial failed, in sentences.
        left_out: Remark on a better value that another program told; None without one.
        default_value: Value of the default configuration; None unless its trial is complete.
        references: Metric of the objective's reference methods, by name.
        seconds: Wall time of this run.
        spent: Hours and GPU hours that the study has taken, over all runs.
    """

    study: str
    budget: Budget
    reasons: Mapping[str, int]
    diverged: Mapping[int, str]
    hopeless: Sequence[str]
    best: FrozenTrial | None
    left_out: str | None
    default_value: float | None
    references: Mapping[str, float]
    seconds: float
    is_interrupted: bool
    spent: Spent = field(default_factory=Spent)

    def flat(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        best = self.best
        return {
            **{name: value for name, value in vars(self).items() if name != "budget"},
            "budget": asdict(self.budget),
            "spent": self.spent.flat(),
            "best": best and {"trial": best.number, "value": best.value, "params": best.params},
        }
