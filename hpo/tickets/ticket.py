"""A worker's ticket: the fence under which its trial is written.

Border: its own row and lease. `budget` takes tickets, gives them back and sweeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from hpo.database.schema import leases, tickets
from hpo.errors import LeaseLost

# The function counts what the lease has cost, and deletes for roles that may not.
_END_LEASE = sa.text("SELECT hpo.end_leases(ARRAY[CAST(:run_uid AS uuid)], 0)")
# A ticket's next trial has no losses and no checkpoint yet.
_ANEW = {"trial_number": None, "losses": 0, "silences": 0, "saved_step": 0, "cause": None}


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """One trial of a study's budget, held under a lease.

    Attributes:
        losses: Workers lost in a row without a newer checkpoint, if the trial may have ended them.
        silences: The same for workers that ended from outside or fell silent.
        saved_step: The step of the newest checkpoint when the last worker gave the trial back.
        cause: The last loss in words.
        trial_number: The ticket's Optuna trial, once it has one.
        run_uid: Identifier of this attempt.
        rerun_of: The earlier trial that this one repeats, because its precision alone failed it.
        params: All or some parameters of the trial; the sampler chooses the others.
        cancelled: The number of its trial that an operator has cancelled; None for none.
    """

    study_uid: str
    ticket: int
    attempt: int
    losses: int
    silences: int
    cause: str | None
    trial_number: int | None
    run_uid: str
    rerun_of: int | None = None
    params: Mapping[str, Any] | None = None
    saved_step: int = 0
    cancelled: int | None = None

    def check(self, session: orm.Session) -> None:
        """Raise `LeaseLost` unless the lease is ours; lock out a takeover until the commit."""
        found = session.scalar(
            sa.select(leases.c.run_uid).where(leases.c.run_uid == self.run_uid).with_for_update()
        )
        if found is None:
            raise LeaseLost(f"ticket {self.ticket} was given to another worker")

    def begun(self, session: orm.Session) -> int | None:
        """The number of the ticket's trial, if it has one by now."""
        number: int | None = session.scalar(
            sa.select(tickets.c.trial_number).where(
                tickets.c.study_uid == self.study_uid, tickets.c.ticket == self.ticket
            )
        )
        return number

    def ending(self, outcome: str) -> Mapping[str, Any]:
        """The ticket's part in the end of its trial."""
        key = {name: getattr(self, name) for name in ("study_uid", "ticket", "attempt")}
        return {**key, "outcome": outcome}

    def end(self, session: orm.Session, state: str) -> None:
        """End the ticket and its lease."""
        session.execute(self._row().values(state=state))
        session.execute(_END_LEASE, {"run_uid": self.run_uid})

    def unbind(self, session: orm.Session) -> None:
        """Give the ticket back without its trial, which was deleted; count no loss."""
        # Without a trial of its own, a rerun has lost the trial that it was to repeat.
        kept = sa.case((tickets.c.trial_number.is_not(None), tickets.c.rerun_of))
        session.execute(self._row().values(_ANEW | {"state": "open", "rerun_of": kept}))
        session.execute(_END_LEASE, {"run_uid": self.run_uid})

    def to_rerun(self, trial_number: int) -> Rerun:
        """The fence under which the trial ends and leaves the ticket to its rerun."""
        return Rerun(**{**vars(self), "trial_number": None, "rerun_of": trial_number})

    def _row(self) -> sa.Update:
        return tickets.update().where(
            tickets.c.study_uid == self.study_uid, tickets.c.ticket == self.ticket
        )


@dataclass(frozen=True, kw_only=True)
class Rerun(Ticket):
    """A ticket that outlives its trial, because another trial repeats the configuration."""

    def ending(self, outcome: str) -> Mapping[str, Any]:
        """Leave ticket and lease to the trial that repeats this one."""
        return {**super().ending(outcome), "rerun_of": self.rerun_of}
