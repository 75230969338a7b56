"""The ended trials of a study by SQL: counted, the best first, and those that ended since.

A count of 100,000 trials takes the database less than a second, and their objects half a gigabyte.
Border: reads; what an outcome is, and which trial counts as the best, is said in `hpo.study`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from hpo.database.frozen import local, read_batches, read_params, rows, snapshot
from hpo.database.history import Rows
from hpo.database.patience import with_retries

T = TypeVar("T")

STATES = "('COMPLETE', 'PRUNED', 'FAIL')"
_ENDED = f"t.study_id = %(study_id)s AND t.state IN {STATES}"
# So many of the best are read at first, as one of them is seldom told from outside or infeasible.
_FIRST, _PART = 16, 1000
_AMONG = "t.trial_id = ANY(%(ids)s)"

# Another program's attribute may hold any text.
_GROUPS = f"""
SELECT t.state::text, reason.value_json, rerun.trial_id IS NOT NULL, count(*),
    sum(CASE WHEN gpu.value_json ~ '^-?\\d+(\\.\\d+)?([eE][-+]?\\d+)?$'
        THEN gpu.value_json::float8 ELSE 0 END)
FROM trials t
LEFT JOIN trial_user_attributes reason
    ON reason.trial_id = t.trial_id AND reason.key = 'prune_reason'
LEFT JOIN trial_user_attributes rerun ON rerun.trial_id = t.trial_id AND rerun.key = 'rerun_of'
LEFT JOIN trial_user_attributes gpu ON gpu.trial_id = t.trial_id AND gpu.key = 'gpu_seconds'
WHERE {_ENDED}
GROUP BY 1, 2, 3 ORDER BY min(t.number)
"""

_RANKED = """
SELECT t.trial_id FROM trials t JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0
WHERE t.study_id = %(study_id)s AND t.state = 'COMPLETE'
ORDER BY CASE v.value_type WHEN 'INF_NEG' THEN -1 WHEN 'INF_POS' THEN 1 ELSE 0 END {order},
    v.value {order}, t.number
"""

_LATEST = f"""
SELECT t.trial_id FROM trials t WHERE {_ENDED} ORDER BY t.datetime_complete DESC NULLS LAST
"""
_LAST = """
SELECT trial_id FROM trials WHERE study_id = %(study_id)s ORDER BY number DESC LIMIT 1
"""
_LAST_FAILED = _LAST.replace("ORDER", "AND state = 'FAIL' ORDER")

# Many trials have a configuration that was enqueued or chosen, few the default one.
_FIXED = """
t.state = 'COMPLETE' AND EXISTS (SELECT FROM trial_system_attributes a
    WHERE a.trial_id = t.trial_id AND key = 'fixed_params')
AND NOT EXISTS (SELECT FROM trial_system_attributes a
    WHERE a.trial_id = t.trial_id AND key = ANY(%(but)s))
"""

_REASONS = """
SELECT t.number, a.value_json FROM trials t JOIN trial_user_attributes a USING (trial_id)
WHERE t.study_id = %(study_id)s AND a.key = 'prune_reason' AND a.value_json = ANY(%(texts)s)
ORDER BY t.number
"""

_NAMES = """
SELECT {name} FROM trials t JOIN {table} p USING (trial_id) WHERE t.study_id = %(study_id)s
GROUP BY 1 ORDER BY min(ARRAY[t.number, {id}])
"""

_FAILED = """
t.study_id = %(study_id)s AND t.state = 'FAIL' AND (
    EXISTS (SELECT FROM trial_user_attributes a WHERE a.trial_id = t.trial_id
        AND key = 'traceback')
    OR EXISTS (SELECT FROM trial_system_attributes a WHERE a.trial_id = t.trial_id
        AND key = 'hpo:lost'))
"""

# What `hopeless_in` asks of a study's columns. A choice or an integer that no failed trial has is
# none of it.
_FATES = f"""
WITH failed AS MATERIALIZED (SELECT t.trial_id, t.number FROM trials t WHERE {_FAILED}),
names AS MATERIALIZED (
    SELECT DISTINCT param_name FROM trial_params JOIN failed USING (trial_id)
    WHERE distribution_json NOT LIKE '%%"FloatDistribution"%%'
)
SELECT 'trial', t.state::text, '', array_agg(t.number), array_agg(t.trial_id::float8)
FROM trials t WHERE {_ENDED} GROUP BY 2
UNION ALL
SELECT 'param', param_name, distribution_json, array_agg(t.number), array_agg(param_value)
FROM trials t JOIN trial_params p USING (trial_id)
WHERE {_ENDED} AND param_name IN (SELECT param_name FROM names) GROUP BY 2, 3
UNION ALL
SELECT 'user', 'traceback', '', array_agg(number), NULL FROM failed HAVING count(*) > 0
"""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The ended trials of one outcome.

    Attributes:
        reason: Their attribute `prune_reason`, as JSON; None without one.
        is_rerun: Whether they repeat other trials in a wider precision.
    """

    state: TrialState
    reason: str | None
    is_rerun: bool
    count: int
    gpu_seconds: float


class Snapshot:
    """The trials of one study at one moment.

    Args:
        connection: A connection of `frozen.snapshot`.
    """

    def __init__(self, connection: sa.Connection, study_id: int) -> None:
        self.connection, self.study_id = connection, study_id

    def rows(self, statement: str, **values: Any) -> Sequence[Any]:
        """The rows of a statement, which names the study `%(study_id)s`."""
        return rows(self.connection, statement, study_id=self.study_id, **values)

    def trials(self, which: str, **values: Any) -> list[FrozenTrial]:
        """The trials that meet a condition on the table `trials t`, by number."""
        order = "t.number, t.trial_id"
        batches = read_batches(self.connection, self.study_id, which, order=order, **values)
        return [one for batch in batches for one in batch]

    def batches(self) -> Iterator[list[FrozenTrial]]:
        """All trials by number, some at a time."""
        return read_batches(self.connection, self.study_id, order="t.number, t.trial_id")

    def has_trials(self) -> bool:
        """Return whether there is a trial, ended or not."""
        return bool(self.rows("SELECT 1 FROM trials WHERE study_id = %(study_id)s LIMIT 1"))

    def params(self) -> Iterator[dict[str, Any]]:
        """The parameters of each trial that has some."""
        return read_params(self.connection, self.study_id)

    def names(self) -> tuple[list[str], list[str]]:
        """The names of parameters and of user attributes, in the order of the trials."""
        params, attributes = (
            [name for (name,) in self.rows(_NAMES.format(table=table, name=name, id=id_))]
            for table, name, id_ in (
                ("trial_params", "param_name", "param_id"),
                ("trial_user_attributes", "key", "trial_user_attribute_id"),
            )
        )
        return params, attributes

    def among(self, ids: Sequence[int]) -> Iterator[FrozenTrial]:
        """The trials with these ids, in their order, read in parts as they are asked for."""
        for first in range(0, len(ids), _PART):
            part = list(ids[first : first + _PART])
            found = {one._trial_id: one for one in self.trials(_AMONG, ids=part)}
            yield from (found[trial_id] for trial_id in part)

    def groups(self) -> list[Group]:
        """The numbers of ended trials, in the order of each outcome's first trial."""
        return [
            Group(state=TrialState[state], reason=why, is_rerun=rerun, count=n, gpu_seconds=s)
            for state, why, rerun, n, s in self.rows(_GROUPS)
        ]

    def ranked(self, *, maximize: bool) -> Iterator[FrozenTrial]:
        """The complete trials, the best first, read as they are asked for."""
        statement = _RANKED.format(order="DESC" if maximize else "ASC")
        first = self._ids(f"{statement} LIMIT {_FIRST}")
        yield from self.among(first)
        if len(first) == _FIRST:
            yield from self.among(self._ids(f"{statement} OFFSET {_FIRST}"))

    def latest(self, count: int) -> list[FrozenTrial]:
        """The trials that ended last, in the order of their ends."""
        return [*self.among(self._ids(f"{_LATEST} LIMIT {count}")[::-1])]

    def last(self, *, has_failed: bool = False) -> FrozenTrial | None:
        """The trial of the highest number, or the failed one of the highest; None without one."""
        return next(self.among(self._ids(_LAST_FAILED if has_failed else _LAST)), None)

    def numbered(self, number: int) -> FrozenTrial | None:
        """The trial of this number; None without one."""
        return next(iter(self.trials("t.number = %(number)s", number=number)), None)

    def fixed(self, but: Collection[str]) -> list[FrozenTrial]:
        """The complete trials with a given configuration, without some system attributes."""
        return self.trials(_FIXED, but=list(but))

    def reasons(self, texts: Collection[str]) -> dict[int, str]:
        """The prune reasons of trials by number, if they are among these JSON texts."""
        return dict(self.rows(_REASONS, texts=list(texts)))

    def failures(self) -> int:
        """The number of trials that failed by what their objective did."""
        return int(self.rows(f"SELECT count(*) FROM trials t WHERE {_FAILED}")[0][0])

    def fates(self) -> list[Rows]:
        """The columns of ended trials that tell hopeless values."""
        return [
            Rows(kind, name, extra, numbers, values or [""] * len(numbers))
            for kind, name, extra, numbers, values in self.rows(_FATES)
        ]

    def _ids(self, statement: str) -> list[int]:
        return [trial_id for (trial_id,) in self.rows(statement)]


def read(engine: sa.Engine, study_id: int, work: Callable[[Snapshot], T]) -> T:
    """Return the result of `work` on a study, retried while the database is away."""

    def once() -> T:
        with snapshot(engine) as connection:
            return work(Snapshot(connection, study_id))

    return with_retries(once)


def sizes(engine: sa.Engine) -> dict[int, tuple[int, datetime | None]]:
    """The number of trials of each study that has some, and the start of the first one."""
    statement = "SELECT study_id, count(*), min(datetime_start) FROM trials GROUP BY 1"
    with engine.connect() as connection:
        return {
            study_id: (count, local(start))
            for study_id, count, start in rows(connection, statement)
        }
