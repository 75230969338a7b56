"""The touch of a worker's row, as a part of the statements that the worker executes anyway.

So a worker that is seen costs no transaction of its own. Border: SQL alone; `budget` has the beat,
`leases` the look of an idle worker, and `crew` writes the rows.
"""

from __future__ import annotations

from typing import TypedDict

import sqlalchemy as sa

from hpo.database.schema import leases, workers

# An idle worker looks every 22 to 38 s, so each of its looks touches its row, and no notice in
# between makes 500 of them write at the same moment.
_TOUCH_S = 20.0


class Keys(TypedDict):
    """The key of a worker's row, within its study."""

    process: str
    slot: str


_MINE = "study_uid = :study_uid AND process = :process AND slot = :slot"
# What a worker is asked and whether it is known, for a statement that looks at something else, too.
# The conditions keep a look that follows a notice from writing anything.
TOUCHED = f"""
touched AS (
    UPDATE hpo.workers SET seen_at = now()
    WHERE {_MINE} AND seen_at < now() - make_interval(secs => {_TOUCH_S})
)
"""
KNOWN = f""",
EXISTS (SELECT FROM hpo.workers WHERE {_MINE}) AS is_known,
EXISTS (SELECT FROM hpo.workers WHERE {_MINE} AND is_drained) AS is_drained
"""


def touching(run_uid: str) -> sa.CTE:
    """The part of a beat that touches the row of the lease's worker, now and then."""
    age = sa.func.make_interval(0, 0, 0, 0, 0, 0, _TOUCH_S)
    same = (workers.c[name] == leases.c[name] for name in ("study_uid", "process", "slot"))
    statement = workers.update().where(
        leases.c.run_uid == run_uid, *same, workers.c.seen_at < sa.func.now() - age
    )
    touched: sa.CTE = statement.values(seen_at=sa.func.now()).cte("touched")
    return touched
