"""Numbers of tickets by state, of one study or of all.

Border: reads alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa

from hpo.database.schema import tickets


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Numbers of a study's tickets by state."""

    open: int = 0
    leased: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.open + self.leased + self.ended

    @property
    def ended(self) -> int:
        return self.complete + self.pruned + self.failed


# Tickets end about in their order. Those below the lowest that has not ended are counted once.
_COUNT = sa.text("""
WITH lowest AS (
    SELECT least(
        (SELECT min(ticket) FROM hpo.tickets WHERE study_uid = :study_uid AND state = 'open'),
        (SELECT min(ticket) FROM hpo.leases WHERE study_uid = :study_uid)
    ) AS ticket
)
SELECT state, t.ticket < lowest.ticket AS is_settled, lowest.ticket AS lowest, count(*) AS n
FROM hpo.tickets t, lowest WHERE study_uid = :study_uid AND t.ticket >= :since
GROUP BY 1, 2, 3
""")


class Counted:
    """The budget of one study, which is counted again and again.

    A ticket that has ended may be opened again where another program renames its study. All are
    counted anew if one is found below those that were settled, and when the last has ended.
    """

    def __init__(self, engine: sa.Engine, study_uid: str) -> None:
        self._engine, self._study_uid = engine, study_uid
        self._forget()

    def _forget(self) -> None:
        self._since, self._settled = 1, Counter[str]()

    def read(self) -> Budget:
        """Count the tickets in each state."""
        values = {"study_uid": self._study_uid, "since": self._since}
        with self._engine.connect() as connection:
            rows = connection.execute(_COUNT, values).all()
        lowest = rows[0].lowest if rows else None
        if self._since > 1 and (lowest is None or lowest < self._since):
            self._forget()
            return self.read()
        found = Counter(self._settled)
        for row in rows:
            found[row.state] += row.n
            if row.is_settled:
                self._settled[row.state] += row.n
        self._since = lowest or 1
        return Budget(**found)


def budgets(engine: sa.Engine) -> dict[str, Budget]:
    """The budget of every study of a database, by its uid."""
    statement = sa.select(tickets.c.study_uid, tickets.c.state, sa.func.count().label("n"))
    grouped: dict[str, dict[str, int]] = {}
    with engine.connect() as connection:
        for row in connection.execute(statement.group_by(tickets.c.study_uid, tickets.c.state)):
            grouped.setdefault(row.study_uid, {})[row.state] = row.n
    return {uid: Budget(**states) for uid, states in grouped.items()}
