"""The binding of a trial to its owner: created or taken from a queue, found again, closed.

Border: each function is the content of one transaction of `storage`, under a fence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from optuna.storages import RDBStorage
from optuna.storages._rdb import models as tables
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm

from hpo.database import outside
from hpo.database.buffer import set_attributes
from hpo.database.fence import Fence

OUTCOMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def bound(session: orm.Session, study_id: int, number: int) -> int:
    """The id of a trial that an owner's rows name.

    Raises:
        TrialEnded: Another program has ended it.
        TrialGone: Another program has deleted it.
    """
    return outside.opened(outside.find(session, study_id, number), f"trial {number}").trial_id


def create(
    session: orm.Session,
    backend: RDBStorage,
    fence: Fence | None,
    *,
    study_id: int,
    user: Mapping[str, Any],
    system: Mapping[str, Any],
    if_waiting: Mapping[str, Any] | None,
) -> int:
    """Create a running trial, or begin an enqueued one, and bind it; return its id."""
    # An earlier try may have committed although its answer was lost.
    number = fence.begun(session) if fence is not None else None
    if number is not None:
        return bound(session, study_id, number)
    tables.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
    found = None
    if if_waiting is not None:
        wanted = {**system, **if_waiting}
        found = outside.begin_waiting(session, study_id, user=user, system=wanted)
    if found is not None:
        trial_id, number = found.trial_id, found.number
    else:
        trial_id, number = _insert(session, backend, study_id, user=user, system=system)
    set_attributes(session, trial_id, user={}, system={outside.NUMBER: number})
    if fence is not None:
        fence.begin(session, number)
    return trial_id


def close(session: orm.Session, fence: Fence, study_id: int) -> int | None:
    """Close the owner's rows of a trial that another program ended, or deleted.

    Ended, the rows take the state that the trial has; deleted, they ask for another trial.

    Returns:
        The number of a deleted trial; None for an ended one.
    """
    fence.check(session)
    number = fence.begun(session)
    found = outside.find(session, study_id, number)
    if found is None:
        # Where the whole study is gone, it may have been renamed, and the trial goes on there.
        if session.get(tables.StudyModel, study_id, with_for_update={"key_share": True}):
            fence.unbind(session)
        return number
    if found.state.is_finished():
        outside.note_ended(session, found)
        fence.end(session, OUTCOMES[found.state])
    return None


def _insert(
    session: orm.Session,
    backend: RDBStorage,
    study_id: int,
    *,
    user: Mapping[str, Any],
    system: Mapping[str, Any],
) -> tuple[int, int]:
    """Insert a running trial; return its id and its number."""
    template = FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs=dict(user),
        system_attrs=dict(system),
        intermediate_values={},
    )
    row = cast(Any, backend._get_prepared_new_trial(study_id, template, session))
    session.flush()
    row.number = outside.free_number(session, study_id, row.trial_id, at_least=row.number)
    row._datetime_start_utc = outside.NOW
    session.flush()
    return row.trial_id, row.number
