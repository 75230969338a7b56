"""Lost workers: their tickets go back, and those that the trial may have ended are counted.

A loss that may be the trial's doing counts in `losses`: a hang, an exit, a crash, memory that ran
out. The second one in a row without a newer checkpoint fails the trial, with its cause. A signal
from outside, silence, and the loss of a host count in `silences`, of which many in a row without
progress are allowed: on a preempted fleet the longest trials meet most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from hpo.database.patience import with_retries
from hpo.tickets.ticket import Ticket

MAX_LOSSES = 2
# A configuration that kills its host leaves no cause, and must not live for ever.
MAX_SILENCES = 20

# Rows that another session holds are skipped: one stuck worker must not stop the sweep of all, and
# its own lease is taken once its transaction has ended. A newer checkpoint starts the counts anew.
_GIVE_BACK = """
WITH chosen AS (SELECT run_uid FROM hpo.leases WHERE {which} FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM hpo.leases l USING chosen c WHERE l.run_uid = c.run_uid
    RETURNING l.study_uid, l.ticket, coalesce(l.saved_step, 0) AS saved_step
)
UPDATE hpo.tickets t SET state = 'open',
    losses = CASE WHEN g.saved_step > t.saved_step THEN 0 ELSE t.losses END + :lost,
    silences = CASE WHEN g.saved_step > t.saved_step THEN 0 ELSE t.silences END + :silent,
    saved_step = greatest(t.saved_step, g.saved_step),
    cause = coalesce(:cause, t.cause)
FROM gone g WHERE t.study_uid = g.study_uid AND t.ticket = g.ticket
RETURNING t.ticket
"""


def give_back(
    engine: sa.Engine,
    which: str,
    *,
    lost: bool = False,
    silent: bool = False,
    cause: str | None = None,
    **values: object,
) -> Sequence[int]:
    """End the leases that a condition selects, open their tickets again, and return those.

    Args:
        which: A condition on `hpo.leases` in SQL, whose parameters are `values`; a function among
            them is asked at each try.
        lost: Count a loss that may be the trial's doing.
        silent: Count a loss that is not.
        cause: The loss in words.
    """
    statement = sa.text(_GIVE_BACK.format(which=which))
    own = {"lost": int(lost), "silent": int(silent), "cause": cause}

    def once() -> Sequence[sa.Row[Any]]:
        given = {name: value() if callable(value) else value for name, value in values.items()}
        given |= own
        with engine.begin() as connection:
            return connection.execute(statement, given).all()

    return [row.ticket for row in with_retries(once)]


def lose(engine: sa.Engine, process: str, *, counts: bool, cause: str) -> Sequence[int]:
    """Give back the ticket that a process of this host held when it ended."""
    which = "process = :process"
    return give_back(engine, which, lost=counts, silent=not counts, cause=cause, process=process)


def verdict(ticket: Ticket) -> str | None:
    """The sentence with which a ticket that lost too many workers ends; None to try again."""
    if ticket.losses >= MAX_LOSSES:
        return f"{ticket.cause or 'it ended its worker'} (twice without a newer checkpoint)"
    if ticket.silences >= MAX_SILENCES:
        return (
            f"cause unknown: it lost {ticket.silences} workers in a row without a newer "
            f"checkpoint, the last: {ticket.cause or 'silent'}"
        )
    return None
