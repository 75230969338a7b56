"""Interface of a fence: the check that the writer of a trial still owns it.

Border: the interface alone; `tickets.ticket` implements it with a lease.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import orm


class Fence(Protocol):
    """The right to write one trial, and the owner's part in its transactions."""

    def check(self, session: orm.Session) -> None:
        """Raise `LeaseLost` if the trial has another owner by now; lock out a takeover."""

    def begun(self, session: orm.Session) -> int | None:
        """The number of the trial already created under this fence; None if there is none."""

    def begin(self, session: orm.Session, trial_number: int) -> None:
        """Record the trial that the same transaction has just created."""

    def end(self, session: orm.Session, state: str) -> None:
        """Close the owner's rows of the trial; state is `complete`, `pruned` or `failed`."""

    def has_ended(self, session: orm.Session) -> bool:
        """Return whether this owner has ended the trial, in a transaction whose answer was lost."""

    def unbind(self, session: orm.Session) -> None:
        """Have the owner's rows ask for another trial, because theirs was deleted."""
