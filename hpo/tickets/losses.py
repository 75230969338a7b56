"""Lost workers: their tickets go back, and those that the trial may have ended are counted.

A loss that may be the trial's doing counts in `losses`: a hang, an exit, a crash, memory that ran
out. The second one in a row without a newer checkpoint fails the trial, with its cause. A signal
from outside, silence, and the loss of a host count in `silences`, of which many in a row without
progress are allowed: on a preempted fleet the longest trials meet most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa

from hpo.database.patience import with_retries
from hpo.tickets.ticket import Ticket

Count = Literal["losses", "silences"]

MAX_LOSSES = 2
# A configuration that kills its host leaves no cause, and must not live for ever.
MAX_SILENCES = 20

# A sweep skips rows that another session holds: one stuck worker must not stop the sweep of all,
# and its own lease is taken once its transaction has ended. A newer checkpoint starts the counts
# anew.
_GIVE_BACK = """
WITH chosen AS (SELECT run_uid FROM hpo.leases WHERE {which} FOR UPDATE {skip}),
gone AS (
    SELECT study AS study_uid, number AS ticket, saved AS saved_step
    FROM (SELECT array_agg(run_uid) AS runs FROM chosen) AS c,
    hpo.end_leases(coalesce(c.runs, '{{}}'), :lost + :silent)
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
    count: Count | None = None,
    cause: str | None = None,
    is_sweep: bool = False,
    **values: Any,
) -> Sequence[int]:
    """End the leases that a condition selects, open their tickets again, and return those.

    Args:
        which: A condition on `hpo.leases` in SQL, whose parameters are `values`; a function among
            them is asked at each try.
        count: The kind of loss that each of them is; None for none.
        cause: The loss in words.
        is_sweep: Leave the leases that another session holds at the moment.
    """
    skip = "SKIP LOCKED" if is_sweep else ""
    statement = sa.text(_GIVE_BACK.format(which=which, skip=skip))
    own = {"lost": int(count == "losses"), "silent": int(count == "silences"), "cause": cause}

    def once() -> Sequence[sa.Row[Any]]:
        given = {name: value() if callable(value) else value for name, value in values.items()}
        with engine.begin() as connection:
            return connection.execute(statement, {**given, **own}).all()

    return [row.ticket for row in with_retries(once)]


# A lease that ran out before its process was ended for a hang was counted as silence: where a
# thread keeps the interpreter's lock, no beat is possible either.
_RECOUNT = sa.text("""
UPDATE hpo.tickets SET losses = losses + 1, silences = greatest(silences - 1, 0), cause = :cause
WHERE study_uid = :study_uid AND ticket = :ticket AND attempt >= :attempt
AND state IN ('open', 'leased')
""")


def lose(
    engine: sa.Engine,
    process: str,
    *,
    study_uid: str,
    ticket: int,
    attempt: int,
    count: Count | None,
    cause: str,
) -> None:
    """Give back the ticket that a process of this host held when it ended.

    Args:
        attempt: The attempt that the process made at it.
    """
    which = "process = :process AND study_uid = :study_uid AND ticket = :ticket"
    where: dict[str, Any] = {"study_uid": study_uid, "ticket": ticket}
    given = give_back(engine, which, count=count, cause=cause, process=process, **where)
    if given or count != "losses":
        return

    def recount() -> None:
        with engine.begin() as connection:
            connection.execute(_RECOUNT, {**where, "attempt": attempt, "cause": cause})

    with_retries(recount)


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
