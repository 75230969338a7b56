"""The list of a database's studies, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.study._frozen import FrozenStudy

from hpo.database import ended
from hpo.database.ended import Snapshot
from hpo.database.patience import with_retries
from hpo.database.storage import TrialStorage
from hpo.study import identity
from hpo.study.outcomes import as_budget, best_trial
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


def overview(storage: TrialStorage, db: sa.Engine) -> list[StudyLine]:
    """All studies of a database, latest start first."""
    by_uid, sizes = budgets(db), with_retries(lambda: ended.sizes(db))
    found = [
        _line(storage, one, by_uid, *sizes.get(one._study_id, (0, None)))
        for one in storage.get_all_studies()
    ]
    return sorted(found, key=lambda line: line.started or datetime.min, reverse=True)


def _line(
    storage: TrialStorage,
    found: FrozenStudy,
    by_uid: Mapping[str, Budget],
    size: int,
    started: datetime | None,
) -> StudyLine:
    """One study's line.

    Args:
        size: Number of its trials.
        started: Start of the first one.
    """
    config, uid, name = config_of(found.user_attrs), uid_of(found.user_attrs), found.study_name
    best, db = None, storage.engine
    if len(found.directions) == 1:
        best = best_trial(optuna.load_study(study_name=name, storage=storage))
    # Another program's study has no tickets, so all its trials count as complete.
    budget = by_uid.get(uid, Budget()) if uid else Budget(complete=size)
    first, copy_of = identity.original(db, uid) if uid and config else None, None
    if first is not None and first.study_id != found._study_id:
        copy_of = first.name
        # The tickets of its uid are the original's.
        budget = as_budget(ended.read(db, found._study_id, Snapshot.groups))
    return StudyLine(
        name=name,
        copy_of=copy_of,
        objective=config.objective if config else None,
        metric=config.metric if config else None,
        budget=budget,
        best=best.value if best else None,
        started=started,
    )
