"""Optuna's FrozenTrials of a study, read by plain SQL.

Optuna reads through SQLAlchemy's ORM: 10,000 trials of 12 parameters, 12 reports and 15 attributes
cost 14 CPU s and 450 MB. Here two statements read as many trials as fit in memory at a time.
`tests/database/test_frozen.py` holds the result against Optuna's own.

Border: reads in one snapshot; `storage` decides when, and keeps what was read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from sys import intern
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

# The rows of this many trials are in memory at a time: about 3 MB.
_BATCH = 1000
# A text that is no longer than this is likely to be another trial's, too: a device, a host, a flag.
_SHORT = 80

_STATES = {state.name: state for state in TrialState}
_VALUES = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}

# A study without a trial has one row, of NULLs; a study that does not exist has none.
_HEADS = """
SELECT t.trial_id, t.number, t.state::text, t.datetime_start, t.datetime_complete
FROM studies s LEFT JOIN trials t ON t.study_id = s.study_id AND ({which})
WHERE s.study_id = %(study_id)s ORDER BY {order}
"""

# The parts of some trials: parameters, values, reports and attributes, in the order of writing. An
# update moves a row, so that only its id tells the order.
_PARTS = """
SELECT 0 AS kind, trial_id, param_id AS id, param_name, param_value, distribution_json
FROM trial_params WHERE trial_id = ANY(%(ids)s)
UNION ALL SELECT 1, trial_id, objective, value_type::text, value, NULL
FROM trial_values WHERE trial_id = ANY(%(ids)s)
UNION ALL SELECT 2, trial_id, trial_intermediate_value_id, intermediate_value_type::text,
    intermediate_value, step::text
FROM trial_intermediate_values WHERE trial_id = ANY(%(ids)s)
UNION ALL SELECT 3, trial_id, trial_user_attribute_id, key, NULL, value_json
FROM trial_user_attributes WHERE trial_id = ANY(%(ids)s)
UNION ALL SELECT 4, trial_id, trial_system_attribute_id, key, NULL, value_json
FROM trial_system_attributes WHERE trial_id = ANY(%(ids)s)
ORDER BY kind, id
"""

_PARAMS = """
SELECT trial_id, param_name, param_value, distribution_json
FROM trial_params WHERE trial_id = ANY(%(ids)s)
"""


@contextmanager
def snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection of which all statements see the same state of the database."""
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="REPEATABLE READ")


def read_trials(
    engine: sa.Engine, study_id: int, which: str = "true", **values: Any
) -> list[FrozenTrial]:
    """The trials of a study, in the order of their ids.

    Args:
        which: A condition in SQL on the table `trials t`.
        values: The values of the condition's parameters, written as `%(name)s`.

    Raises:
        KeyError: There is no such study.
    """
    with snapshot(engine) as connection:
        batches = read_batches(connection, study_id, which, **values)
        return [one for batch in batches for one in batch]


def read_batches(
    connection: sa.Connection,
    study_id: int,
    which: str = "true",
    *,
    order: str = "t.trial_id",
    **values: Any,
) -> Iterator[list[FrozenTrial]]:
    """The same in batches, on the connection of a snapshot."""
    statement = _HEADS.format(which=which, order=order)
    heads = rows(connection, statement, study_id=study_id, **values)
    if not heads:
        raise KeyError(f"there is no study with the id {study_id}")
    if heads[0][0] is None:
        return
    reader = _Reader()
    for first in range(0, len(heads), _BATCH):
        batch = [reader.begin(*head) for head in heads[first : first + _BATCH]]
        by_id = {trial._trial_id: trial for trial in batch}
        for kind, trial_id, *part in rows(connection, _PARTS, ids=list(by_id)):
            reader.add[kind](by_id[trial_id], *part)
        yield batch


def read_params(connection: sa.Connection, study_id: int) -> Iterator[dict[str, Any]]:
    """The parameters of each trial of a study that has some, on the connection of a snapshot."""
    ids = [
        trial_id
        for (trial_id,) in rows(
            connection, "SELECT trial_id FROM trials WHERE study_id = %(id)s", id=study_id
        )
    ]
    reader = _Reader()
    for first in range(0, len(ids), _BATCH):
        found: dict[int, dict[str, Any]] = {}
        for trial_id, name, value, text in rows(
            connection, _PARAMS, ids=ids[first : first + _BATCH]
        ):
            found.setdefault(trial_id, {})[name] = reader.kind(text)[1](value)
        yield from found.values()


def newer(included: Collection[int], greater_than: int) -> tuple[str, dict[str, Any]]:
    """The condition for trials with an id above one, or among some below; -1 for all trials."""
    if greater_than < 0:
        return "true", {}
    below = [trial_id for trial_id in included if trial_id <= greater_than]
    return "t.trial_id > %(above)s OR t.trial_id = ANY(%(below)s)", {
        "above": greater_than,
        "below": below,
    }


def rows(connection: sa.Connection, statement: str, **values: Any) -> Sequence[Any]:
    """The rows of a statement as the driver's tuples, which cost half of SQLAlchemy's rows."""
    with connection.exec_driver_sql(statement, values) as result:
        # The driver has received all of them by now, so that nothing here can fail.
        found: Sequence[Any] = result.cursor.fetchall()
    return found


class _Reader:
    """Builds trials of rows; equal names, distributions and short texts are one object.

    Attributes:
        add: The functions that add a part to a trial, by its kind.
    """

    def __init__(self) -> None:
        self.add: Sequence[Callable[..., None]] = (
            self._add_param,
            _add_value,
            _add_report,
            self._add_user,
            self._add_system,
        )
        self._kinds: dict[str, tuple[BaseDistribution, Callable[[float], Any]]] = {}
        self._parsed: dict[str, Any] = {}

    def begin(
        self,
        trial_id: int,
        number: int,
        state: str,
        start: datetime | None,
        complete: datetime | None,
    ) -> FrozenTrial:
        """A trial without its parts."""
        return FrozenTrial(
            number=number,
            state=_STATES[state],
            value=None,
            datetime_start=local(start),
            datetime_complete=local(complete),
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=trial_id,
        )

    def _add_param(self, trial: FrozenTrial, _: int, name: str, value: float, text: str) -> None:
        distribution, external = self.kind(text)
        name = intern(name)
        trial._params[name] = external(value)
        trial._distributions[name] = distribution

    def kind(self, text: str) -> tuple[BaseDistribution, Callable[[float], Any]]:
        """A distribution by its JSON, and the function that makes a stored value an objective's."""
        found = self._kinds.get(text)
        if found is None:
            distribution = json_to_distribution(text)
            found = self._kinds[text] = distribution, distribution.to_external_repr
        return found

    def _add_user(self, trial: FrozenTrial, _: int, key: str, __: None, text: str) -> None:
        trial._user_attrs[intern(key)] = self._value(text)

    def _add_system(self, trial: FrozenTrial, _: int, key: str, __: None, text: str) -> None:
        trial._system_attrs[intern(key)] = self._value(text)

    def _value(self, text: str) -> Any:
        """The value of a JSON text; what cannot be changed is shared."""
        if text in self._parsed:
            return self._parsed[text]
        value = json.loads(text)
        if len(text) <= _SHORT and not isinstance(value, list | dict):
            self._parsed[text] = value
        return value


def _add_value(trial: FrozenTrial, _: int, kind: str, value: float | None, __: None) -> None:
    # The values of several objectives come in their order.
    trial._values = [*(trial._values or ()), _VALUES.get(kind, value)]  # type: ignore[list-item]


def _add_report(trial: FrozenTrial, _: int, kind: str, value: float | None, step: str) -> None:
    trial.intermediate_values[int(step)] = _VALUES.get(kind, value)  # type: ignore[assignment]


def local(time: datetime | None) -> datetime | None:
    """A time of the database, which is UTC, as Optuna gives it: in this host's zone, without it."""
    return None if time is None else time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
