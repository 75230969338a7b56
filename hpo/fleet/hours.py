"""A run's view of its study's hours: once they are spent, running trials end and none begins.

Border: says so and waits; whoever takes a ticket is refused it by the database itself.
"""

from __future__ import annotations

from collections.abc import Callable

from hpo.fleet.events import BudgetSpent, Event
from hpo.tickets.budget import Budget, Tickets
from hpo.tickets.spent import Spent


class Hours:
    """The hours of one study.

    Attributes:
        is_over: True if a limit was reached and trials are left; a larger one makes it false.
    """

    def __init__(self, tickets: Tickets, emit: Callable[[Event], None]) -> None:
        self._tickets, self._emit = tickets, emit
        self.is_over = False

    def read(self, budget: Budget) -> Spent:
        """Read what the study has spent."""
        spent = self._tickets.spent()
        was_over, self.is_over = self.is_over, spent.reached is not None and budget.open > 0
        if self.is_over and not was_over:
            self._emit(BudgetSpent(sentence=spent.sentence(left=budget.open)))
        return spent

    def has_ended(self, budget: Budget) -> bool:
        """Return whether no trial runs any more of a study whose hours are spent."""
        if budget.leased:
            # No worker may be left that would give a lost one's ticket back.
            self._tickets.sweep()
        return not budget.leased
