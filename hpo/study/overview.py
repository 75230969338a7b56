"""The list of a database's studies, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import optuna
import sqlalchemy as sa

from hpo.study import identity
from hpo.study.outcomes import best_trial, trials_as_budget
from hpo.study.study import config_of, uid_of
from hpo.tickets.budget import Budget, budgets


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """One study's line in the overview.

    Attributes:
        objective: None for a study that another Optuna program created.
        started: Start of its first trial, by the clock of the host that ran it.
        copy_of: Name of the original, for a copy without a budget of its own yet.
    """

    name: str
    copy_of: str | None
    objective: str | None
    metric: str | None
    budget: Budget
    best: float | None
    started: datetime | None

    def flat(self) -> dict[str, Any]:
        """The line as plain data for JSON."""
        started = self.started.isoformat(timespec="seconds") if self.started else None
        return {**vars(self), "budget": asdict(self.budget), "started": started}


def overview(storage: optuna.storages.BaseStorage, db: sa.Engine) -> list[StudyLine]:
    """All studies of a database, latest start first."""
    by_uid = budgets(db)
    found = [
        _line(storage, db, summary, by_uid) for summary in optuna.get_all_study_summaries(storage)
    ]
    return sorted(found, key=lambda line: line.started or datetime.min, reverse=True)


def _line(
    storage: optuna.storages.BaseStorage,
    db: sa.Engine,
    summary: optuna.study.StudySummary,
    by_uid: Mapping[str, Budget],
) -> StudyLine:
    config, name = config_of(summary.user_attrs), summary.study_name
    uid = uid_of(summary.user_attrs)
    best = None
    if len(summary.directions) == 1:
        best = best_trial(optuna.load_study(study_name=name, storage=storage))
    # Another program's study has no tickets, so all its trials count as complete.
    budget = by_uid.get(uid, Budget()) if uid else Budget(complete=summary.n_trials)
    first, copy_of = identity.original(db, uid) if uid and config else None, None
    if first is not None and first.study_id != summary._study_id:
        copy_of = first.name
        # The tickets of its uid are the original's.
        trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        budget = trials_as_budget(trials)
    return StudyLine(
        name=name,
        copy_of=copy_of,
        objective=config.objective if config else None,
        metric=config.metric if config else None,
        budget=budget,
        best=best.value if best else None,
        started=summary.datetime_start,
    )
