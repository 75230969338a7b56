"""Interface of a fence: the owner's word on whether a trial may still be written.

Border: no implementation. `tickets.ticket` has the one that holds a lease.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import orm


class Fence(Protocol):
    """What says whether a trial may still be written, and closes what belongs to it."""

    def check(self, session: orm.Session) -> None:
        """Raise `LeaseLost` if the trial belongs to somebody else by now; lock out a takeover."""

    def begun(self, session: orm.Session) -> int | None:
        """The number of the trial that was created under this fence already, if one was."""

    def begin(self, session: orm.Session, trial_number: int) -> None:
        """Note the trial that has just been created in the same transaction."""

    def end(self, session: orm.Session, state: str) -> None:
        """Close what belongs to the trial: state is `complete`, `pruned` or `failed`."""
