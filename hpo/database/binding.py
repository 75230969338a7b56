"""The end of a trial's binding to its owner, where another program ended or deleted the trial.

Border: the content of one transaction of `storage`, under a fence.
"""

from __future__ import annotations

from optuna.storages._rdb import models as tables
from optuna.trial import TrialState
from sqlalchemy import orm

from hpo.database import outside
from hpo.database.fence import Fence
from hpo.database.schema import identities

OUTCOMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


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
            # Its number is free again where it was the highest. This row is locked before the
            # ticket's, as where a renamed study is bound.
            here = identities.c.study_id == study_id
            session.execute(
                identities.update().where(here).values(last_trial_id=None, next_number=None)
            )
            fence.unbind(session)
        return number
    if found.state.is_finished():
        outside.note_ended(session, found)
        fence.end(session, OUTCOMES[found.state])
    return None
