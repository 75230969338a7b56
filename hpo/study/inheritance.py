"""Give copies and renamed studies the tickets and the records that belong to their trials.

A ticket names its trial by number, which is the same in a copy. Border: rows, in a transaction of
`identity`, which decides what is a copy and what was renamed.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import UUID

from hpo.database.schema import OWN, environments, identities, leases, metrics, tickets

# These tables hold a study's rows. An identity outlives its study and is none of them.
ROWS = [t for t in OWN.sorted_tables if "study_uid" in t.c and t is not identities]
# A table of these has records of trials, which a copy takes along.
_RECORDS = [table for table in ROWS if table not in (tickets, leases)]
_CLOSED = "was running when the study was copied"

_HAS_ENDED = "state IN ('COMPLETE', 'PRUNED', 'FAIL')"
_OUTCOME = (
    "CASE {}.state WHEN 'COMPLETE' THEN 'complete' WHEN 'PRUNED' THEN 'pruned'"
    " WHEN 'FAIL' THEN 'failed' ELSE 'open' END"
)

# A trial that ended between the copying and the deletion of a rename is RUNNING in the renamed
# study, and one that began in that time is missing there. Their tickets are open again.
_REOPEN = sa.text(f"""
UPDATE hpo.tickets t
SET state = CASE t.state WHEN 'leased' THEN 'leased' ELSE 'open' END,
    trial_number = CASE WHEN mine.state = 'RUNNING' THEN t.trial_number
                        WHEN first.state = 'RUNNING' THEN t.rerun_of END,
    rerun_of = CASE WHEN first.{_HAS_ENDED} THEN t.rerun_of END
FROM hpo.tickets o
LEFT JOIN trials mine ON mine.study_id = :study_id AND mine.number = o.trial_number
LEFT JOIN trials first ON first.study_id = :study_id AND first.number = o.rerun_of
WHERE t.study_uid = :uid AND o.study_uid = t.study_uid AND o.ticket = t.ticket
AND coalesce(o.trial_number, o.rerun_of) IS NOT NULL
AND (mine.state IS NULL OR NOT mine.{_HAS_ENDED})
""")

# A trial is the same in both studies if its start is. Another program may have added some.
_SHARE = sa.text(f"""
INSERT INTO hpo.tickets (study_uid, ticket, state, trial_number, rerun_of, params)
SELECT :new, t.ticket, {_OUTCOME.format("mine")},
    CASE WHEN mine.{_HAS_ENDED} THEN t.trial_number END,
    CASE WHEN first.{_HAS_ENDED} THEN t.rerun_of END,
    t.params
FROM hpo.tickets t
LEFT JOIN trials original ON original.study_id = :original AND original.number = t.trial_number
LEFT JOIN trials mine ON mine.study_id = :study_id AND mine.number = t.trial_number
    AND mine.datetime_start = original.datetime_start
LEFT JOIN trials first ON first.study_id = :study_id AND first.number = t.rerun_of
WHERE t.study_uid = :uid
""")

# A copy from another database comes without tickets. Every trial of this service has a `run_uid`,
# and a rerun shares the ticket of the trial that it repeats.
_ADOPT = sa.text(f"""
INSERT INTO hpo.tickets (study_uid, ticket, state, trial_number)
SELECT :uid, row_number() OVER (ORDER BY number), {_OUTCOME.format("t")}, number
FROM trials t
WHERE study_id = :study_id AND {_HAS_ENDED}
AND EXISTS (SELECT FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'run_uid')
AND NOT EXISTS (
    SELECT FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'rerun_of'
)
""")

_CLOSE = sa.text("""
WITH closed AS (
    UPDATE trials SET state = 'FAIL', datetime_complete = timezone('UTC', now())
    WHERE study_id = :study_id AND state = 'RUNNING' RETURNING trial_id
)
INSERT INTO trial_user_attributes (trial_id, key, value_json)
SELECT trial_id, name, text
FROM closed, (VALUES ('prune_reason', '"-"'), ('prune_detail', :detail)) AS why (name, text)
ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
""")

# The attempts of a copy have uids of their own, made of the original's and the copy's.
_RENAME = sa.text("""
UPDATE trial_user_attributes a
SET value_json = to_json(md5((value_json::json #>> '{}') || :new)::uuid::text)::text
FROM trials t
JOIN hpo.tickets k ON k.study_uid = :new AND t.number IN (k.trial_number, k.rerun_of)
WHERE t.study_id = :study_id AND a.trial_id = t.trial_id AND a.key = 'run_uid'
""")


def reopen(connection: sa.Connection, uid: str, study_id: int) -> None:
    """Open the tickets whose trials have not ended in the renamed study."""
    connection.execute(_REOPEN, {"uid": uid, "study_id": study_id})


def adopt(connection: sa.Connection, uid: str, study_id: int) -> None:
    """Give a copy from another database a ticket for each trial that has ended."""
    connection.execute(_ADOPT, {"uid": uid, "study_id": study_id})
    _close(connection, study_id)


def divide(
    connection: sa.Connection, uid: str, new: str, *, original_id: int, study_id: int
) -> None:
    """Give a copy its tickets and records; end the trials that run in the original alone.

    Args:
        uid: The original's, with which the copy came.
        new: The copy's own.
    """
    values = {"uid": uid, "new": new, "original": original_id, "study_id": study_id}
    connection.execute(_SHARE, values)
    of_copy = tickets.c.study_uid == new
    # A ticket of the copy names ended trials alone.
    ended = sa.select(tickets.c.ticket).where(of_copy, tickets.c.state != "open")
    numbers = sa.union(
        *(
            sa.select(column).where(of_copy, column.is_not(None))
            for column in (tickets.c.trial_number, tickets.c.rerun_of)
        )
    )
    for table in _RECORDS:
        if table is environments:
            which: sa.ColumnElement[bool] = sa.true()
        elif table is metrics:
            which = table.c.ticket.in_(ended)
        else:
            which = table.c.trial_number.in_(numbers)
        columns = [_of_copy(column, new) for column in table.c]
        rows = sa.select(*columns).where(table.c.study_uid == uid, which)
        connection.execute(table.insert().from_select(list(table.c.keys()), rows))
    connection.execute(_RENAME, values)
    _close(connection, study_id)


def _of_copy(column: sa.Column[Any], new: str) -> sa.ColumnElement[Any]:
    if column.name == "study_uid":
        return sa.cast(new, UUID(as_uuid=False))
    if column.name == "run_uid":
        return sa.cast(sa.func.md5(sa.cast(column, sa.Text) + new), UUID(as_uuid=False))
    return column


def _close(connection: sa.Connection, study_id: int) -> None:
    """End the trials that a copy shows as running, because no worker trains them."""
    connection.execute(_CLOSE, {"study_id": study_id, "detail": json.dumps(_CLOSED)})
