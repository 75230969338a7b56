"""Interface of a fence: the right to write one trial, which an owner may lose.

Border: the interface alone; `tickets.ticket` implements it with a lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sqlalchemy import orm


class Fence(Protocol):
    """The right to write one trial, and the owner's part in its transactions.

    Attributes:
        run_uid: Key of the lease, which every write checks and locks.
        study_uid: With `ticket`, the key of the owner's row.
    """

    @property
    def run_uid(self) -> str: ...

    @property
    def study_uid(self) -> str: ...

    @property
    def ticket(self) -> int: ...

    def ending(self, outcome: str) -> Mapping[str, Any]:
        """The owner's part in the end of its trial, for the function `end_ticket`.

        Args:
            outcome: `complete`, `pruned` or `failed`.
        """

    def check(self, session: orm.Session) -> None:
        """Raise `LeaseLost` if the trial has another owner by now; lock out a takeover."""

    def begun(self, session: orm.Session) -> int | None:
        """The number of the trial already created under this fence; None if there is none."""

    def end(self, session: orm.Session, state: str) -> None:
        """Close the owner's rows of the trial; state is `complete`, `pruned` or `failed`."""

    def unbind(self, session: orm.Session) -> None:
        """Have the owner's rows ask for another trial, because theirs was deleted."""
