"""Give copies and renamed studies the tickets and the records that belong to their trials.

A ticket names its trial by number. A copy that Optuna makes numbers its trials anew, without the
gaps of deleted ones, and each brings the number of before along as an attribute. Border: rows, in
a transaction of `identity`, which decides what is a copy and what was renamed.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import UUID

from hpo.database.outside import NUMBER
from hpo.database.schema import (
    OWN,
    controls,
    environments,
    hosts,
    identities,
    leases,
    metrics,
    spans,
    spending,
    tickets,
    workers,
)

# These tables hold a study's rows. An identity outlives its study and is none of them.
ROWS = [t for t in OWN.sorted_tables if "study_uid" in t.c and t is not identities]
# A table of these has records of trials, which a copy takes along.
_RECORDS = [
    table
    for table in ROWS
    if table not in (tickets, leases, workers, hosts, controls, spending, spans)
]
_CLOSED = "was running when the study was copied"

# The trials of a copy, under the numbers of before and of now.
_RENUMBERED = f"""
SELECT DISTINCT ON (was) t.trial_id, number, state, datetime_start,
    coalesce(value_json::integer, number) AS was
FROM trials t LEFT JOIN trial_system_attributes a ON a.trial_id = t.trial_id AND key = '{NUMBER}'
WHERE study_id = :study_id
ORDER BY was, value_json IS NULL, number
"""

_HAS_ENDED = "state IN ('COMPLETE', 'PRUNED', 'FAIL')"
_OUTCOME = (
    "CASE {}.state WHEN 'COMPLETE' THEN 'complete' WHEN 'PRUNED' THEN 'pruned'"
    " WHEN 'FAIL' THEN 'failed' ELSE 'open' END"
)

# A trial that ended between the copying and the deletion of a rename is RUNNING in the renamed
# study, and one that began in that time is missing there. Their tickets are open again. The ticket
# of an ended one that is missing below the highest number stays ended: it was deleted before.
_REOPEN = sa.text(f"""
WITH renumbered AS ({_RENUMBERED})
UPDATE hpo.tickets t
SET state = CASE WHEN mine.{_HAS_ENDED} OR t.state = 'leased' THEN t.state
                 WHEN mine.state IS NULL AND o.trial_number < (SELECT max(was) FROM renumbered)
                     THEN t.state
                 ELSE 'open' END,
    trial_number = CASE WHEN mine.{_HAS_ENDED} OR mine.state = 'RUNNING' THEN mine.number
                        WHEN first.state = 'RUNNING' THEN first.number END,
    rerun_of = CASE WHEN first.{_HAS_ENDED} THEN first.number END,
    cancelled = CASE WHEN o.cancelled = o.trial_number THEN mine.number END
FROM hpo.tickets o
LEFT JOIN renumbered mine ON mine.was = o.trial_number
LEFT JOIN renumbered first ON first.was = o.rerun_of
WHERE t.study_uid = :uid AND o.study_uid = t.study_uid AND o.ticket = t.ticket
AND coalesce(o.trial_number, o.rerun_of) IS NOT NULL
""")

# A key must not be there twice at any time, so that a row takes its number in two steps. A row of a
# deleted trial leaves its place.
_MOVE = (
    # A function of the owner deletes for a worker, whose role may not.
    sa.text(
        f"WITH renumbered AS ({_RENUMBERED}) SELECT hpo.clear_records(:uid, array_agg(number))"
        " FROM renumbered WHERE was <> number AND number NOT IN (SELECT was FROM renumbered)"
    ),
    *(
        sa.text(f"WITH renumbered AS ({_RENUMBERED}) {statement}")
        for table in _RECORDS
        if "trial_number" in table.c
        for statement in (
            f"UPDATE {table} r SET trial_number = -1 - m.number FROM renumbered m"
            " WHERE r.study_uid = :uid AND r.trial_number = m.was AND m.was <> m.number",
            f"UPDATE {table} r SET trial_number = -1 - trial_number"
            " WHERE r.study_uid = :uid AND r.trial_number < 0",
        )
    ),
)

# A trial is the same in both studies if its start is. Another program may have added some. The
# ticket of a trial that was deleted after its end stays ended.
_SHARE = sa.text(f"""
WITH renumbered AS ({_RENUMBERED})
INSERT INTO hpo.tickets (study_uid, ticket, state, trial_number, rerun_of, params)
SELECT :new, t.ticket,
    CASE WHEN t.state NOT IN ('open', 'leased') AND original.number IS NULL THEN t.state
        ELSE {_OUTCOME.format("mine")} END,
    CASE WHEN mine.{_HAS_ENDED} THEN mine.number END,
    CASE WHEN first.{_HAS_ENDED} THEN first.number END,
    t.params
FROM hpo.tickets t
LEFT JOIN trials original ON original.study_id = :original AND original.number = t.trial_number
LEFT JOIN renumbered mine ON mine.was = t.trial_number
    AND mine.datetime_start = original.datetime_start
LEFT JOIN renumbered first ON first.was = t.rerun_of
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

# From then on the numbers of now are those of before.
_RENUMBER = (
    sa.text(f"""
WITH renumbered AS ({_RENUMBERED})
UPDATE trial_user_attributes a SET value_json = first.number::text
FROM trials t, renumbered first
WHERE t.study_id = :study_id AND a.trial_id = t.trial_id AND a.key = 'rerun_of'
AND a.value_json = first.was::text
"""),
    sa.text(f"""
UPDATE trial_system_attributes a SET value_json = t.number::text
FROM trials t WHERE t.study_id = :study_id AND a.trial_id = t.trial_id AND a.key = '{NUMBER}'
"""),
)

# The attempts of a copy have uids of their own, made of the original's and the copy's.
_RENAME = sa.text("""
UPDATE trial_user_attributes a
SET value_json = to_json(md5((value_json::json #>> '{}') || :new)::uuid::text)::text
FROM trials t
WHERE t.study_id = :study_id AND a.trial_id = t.trial_id AND a.key = 'run_uid'
AND t.number IN (
    SELECT trial_number FROM hpo.tickets WHERE study_uid = :new
    UNION SELECT rerun_of FROM hpo.tickets WHERE study_uid = :new
)
""")


def reopen(connection: sa.Connection, uid: str, study_id: int) -> None:
    """Open the tickets whose trials have not ended in the renamed study."""
    for statement in (_REOPEN, *_MOVE, *_RENUMBER):
        connection.execute(statement, {"uid": uid, "study_id": study_id})


def adopt(connection: sa.Connection, uid: str, study_id: int) -> None:
    """Give a copy from another database a ticket for each trial that has ended."""
    for statement in (_ADOPT, *_RENUMBER):
        connection.execute(statement, {"uid": uid, "study_id": study_id})
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
    mine = sa.text(_RENUMBERED).bindparams(study_id=study_id)
    renumbered = mine.columns(was=sa.Integer, number=sa.Integer).subquery("renumbered")
    for table in _RECORDS:
        columns = {column.name: _of_copy(column, new) for column in table.c}
        rows = sa.select(table)
        if table is metrics:
            rows = rows.where(table.c.ticket.in_(ended))
        elif table is not environments:
            columns["trial_number"] = renumbered.c.number
            rows = rows.join(renumbered, table.c.trial_number == renumbered.c.was)
            rows = rows.where(renumbered.c.number.in_(numbers))
        rows = rows.where(table.c.study_uid == uid).with_only_columns(*columns.values())
        connection.execute(table.insert().from_select(list(table.c.keys()), rows))
    for statement in (_RENAME, *_RENUMBER):
        connection.execute(statement, values)
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
