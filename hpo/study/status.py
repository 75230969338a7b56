"""A study's status: trials by state and prune reason, losses to precision, leases, best trial.

Border: reads and counts; prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial

from hpo.database import ended
from hpo.database.ended import Group
from hpo.errors import RunFailed
from hpo.study.outcomes import (
    as_budget,
    best_and_remark,
    hopeless_values,
    outcome_of,
    prune_reasons,
)
from hpo.study.study import OpenStudy, last_run
from hpo.tickets.budget import Budget, Tickets
from hpo.tickets.leases import Lease
from hpo.tickets.orders import paused
from hpo.tickets.spent import Spent

_PRECISION = "precision_range"


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Numbers of configurations lost to precision: finite in fp32, not in the study's precision.

    Attributes:
        precision: The study's precision.
        configurations: All of them.
        rerun: Those that were tried again in a wider precision.
        recovered: Those that were complete or stopped by the pruner in their rerun.
    """

    precision: str
    configurations: int
    rerun: int
    recovered: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of a study.

    Attributes:
        spent: Hours and GPU hours that it has taken, and their limits.
        reasons: Numbers of pruned trials by prune reason.
        gpu_seconds: GPU seconds by outcome: complete, a prune reason or fail.
        left_out: Remark on a better value that another program told; None without one.
        failure: Number and error of the last failed trial; None without one.
        hopeless: Values with which every trial fails, which samplers avoid, in sentences.
        configuration: Effective configuration of the latest run, keyed by flag.
        copy_of: Name of the original, for a copy without a budget of its own yet.
        paused: The study's pause in a sentence; None without one.
    """

    study: str
    copy_of: str | None
    metric: str
    budget: Budget
    spent: Spent
    reasons: Mapping[str, int]
    gpu_seconds: Mapping[str, float]
    lost: Lost
    leases: Sequence[Lease]
    best: FrozenTrial | None
    left_out: str | None
    failure: str | None
    hopeless: Sequence[str]
    configuration: Mapping[str, Any]
    paused: str | None = None

    def flat(self) -> dict[str, Any]:
        """The status as plain data for JSON."""
        best = self.best
        return {
            "study": self.study,
            "copy_of": self.copy_of,
            "metric": self.metric,
            "paused": self.paused,
            "trials": {**asdict(self.budget), "total": self.budget.total},
            "spent": self.spent.flat(),
            "prune_reasons": dict(self.reasons),
            "gpu_seconds": dict(self.gpu_seconds),
            "lost_to_precision": asdict(self.lost),
            "workers": [asdict(lease) for lease in self.leases],
            "failure": self.failure,
            "hopeless": list(self.hopeless),
            "configuration": dict(self.configuration),
            "best": best and {"trial": best.number, "value": best.value, "params": best.params},
            "left_out": self.left_out,
        }


def status(opened: OpenStudy, db: sa.Engine) -> Status:
    """Read the current status of a study.

    Raises:
        RunFailed: It was deleted or renamed since it was opened.
    """
    tickets = Tickets(db, opened.uid)
    try:
        study = opened.load()
    except KeyError:
        raise RunFailed(f"study '{opened.name}' was deleted or renamed meanwhile") from None
    groups, failed, hopeless = ended.read(
        db,
        opened.study_id,
        lambda found: (found.groups(), found.last(has_failed=True), hopeless_values(found)),
    )
    is_copy = opened.copy_of is not None
    seconds: dict[str, float] = {}
    for group in groups:
        name = outcome_of(group)
        seconds[name] = seconds.get(name, 0.0) + group.gpu_seconds
    best, remark = best_and_remark(study)
    pause = None if is_copy else paused(db, opened.uid)
    return Status(
        study=opened.name,
        copy_of=opened.copy_of,
        metric=opened.config.metric,
        # The tickets and leases of its uid are the original's.
        budget=as_budget(groups) if is_copy else tickets.count(),
        spent=Spent() if is_copy else tickets.spent(),
        reasons=dict(prune_reasons(groups).most_common()),
        gpu_seconds={name: round(total, 1) for name, total in seconds.items()},
        lost=_lost(groups, opened.config.precision),
        leases=[] if is_copy else tickets.live(),
        best=best,
        left_out=remark,
        failure=None if failed is None else _failure(failed),
        hopeless=[one.sentence() for one in hopeless],
        configuration=last_run(opened),
        paused=None if pause is None else pause.sentence(opened.name),
    )


def _failure(failed: FrozenTrial) -> str:
    """Number and detail of a failed trial."""
    return f"trial {failed.number}: {failed.user_attrs.get('prune_detail', '-')}"


def _lost(groups: Sequence[Group], precision: str) -> Lost:
    first = [one.count for one in groups if not one.is_rerun and outcome_of(one) == _PRECISION]
    reruns = [one for one in groups if one.is_rerun]
    recovered = [one.count for one in reruns if outcome_of(one) in ("complete", "pruner")]
    return Lost(
        precision=precision,
        configurations=sum(first),
        rerun=sum(one.count for one in reruns),
        recovered=sum(recovered),
    )
