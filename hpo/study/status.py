"""A study's status: trials by state and prune reason, losses to precision, leases, best trial.

Border: reads and counts; prints nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import RunFailed
from hpo.search.hopeless import hopeless
from hpo.search.samplers import RERUN_OF
from hpo.study.outcomes import (
    best_trial,
    left_out,
    outcome,
    prune_reasons,
    trials_as_budget,
)
from hpo.study.study import OpenStudy, last_run
from hpo.tickets.budget import Budget, Tickets
from hpo.tickets.leases import Lease


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
        reasons: Numbers of pruned trials by prune reason.
        gpu_seconds: GPU seconds by outcome: complete, a prune reason or fail.
        left_out: Remark on a better value that another program told; None without one.
        failure: Number and error of the last failed trial; None without one.
        hopeless: Values with which every trial fails, which samplers avoid, in sentences.
        configuration: Effective configuration of the latest run, keyed by flag.
        copy_of: Name of the original, for a copy without a budget of its own yet.
    """

    study: str
    copy_of: str | None
    metric: str
    budget: Budget
    reasons: Mapping[str, int]
    gpu_seconds: Mapping[str, float]
    lost: Lost
    leases: Sequence[Lease]
    best: FrozenTrial | None
    left_out: str | None
    failure: str | None
    hopeless: Sequence[str]
    configuration: Mapping[str, Any]

    def flat(self) -> dict[str, Any]:
        """The status as plain data for JSON."""
        best = self.best
        return {
            "study": self.study,
            "copy_of": self.copy_of,
            "metric": self.metric,
            "trials": {**asdict(self.budget), "total": self.budget.total},
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
    ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    is_copy = opened.copy_of is not None
    seconds: Counter[str] = Counter()
    for trial in ended:
        seconds[outcome(trial)] += trial.user_attrs.get("gpu_seconds", 0.0)
    return Status(
        study=opened.name,
        copy_of=opened.copy_of,
        metric=opened.config.metric,
        # The tickets and leases of its uid are the original's.
        budget=trials_as_budget(ended) if is_copy else tickets.count(),
        reasons=prune_reasons(ended),
        gpu_seconds={name: round(total, 1) for name, total in seconds.items()},
        lost=_lost(ended, opened.config.precision),
        leases=[] if is_copy else tickets.live(),
        best=best_trial(study),
        left_out=left_out(study),
        failure=_failure(ended),
        hopeless=[one.sentence() for one in hopeless(ended)],
        configuration=last_run(opened),
    )


def _failure(ended: Sequence[FrozenTrial]) -> str | None:
    """Number and detail of the last failed trial."""
    failed = [trial for trial in ended if trial.state == TrialState.FAIL]
    if not failed:
        return None
    return f"trial {failed[-1].number}: {failed[-1].user_attrs.get('prune_detail', '-')}"


def _lost(ended: Sequence[FrozenTrial], precision: str) -> Lost:
    first = [t for t in ended if RERUN_OF not in t.user_attrs]
    reruns = [t for t in ended if RERUN_OF in t.user_attrs]
    recovered = [t for t in reruns if outcome(t) in ("complete", "pruner")]
    lost = sum(outcome(t) == "precision_range" for t in first)
    return Lost(
        precision=precision, configurations=lost, rerun=len(reruns), recovered=len(recovered)
    )
