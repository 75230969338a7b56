"""Trials of one study in columns, indexed by trial number, for samplers and pruners.

A finished trial never changes, so that a worker reads each once: some hundred bytes of numbers in
place of Optuna's objects, of which 10,000 take 450 MB. Trials that are not finished are read again.

Border: columns in memory. `history_reader` fills them from the database.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState

from hpo.database.outside import ENDED_OUTSIDE

# The state of a number that no trial has.
ABSENT = -1
# The attributes that are kept; `sampler_view`, `hopeless` and `outcomes` say what they mean.
USER_ATTRIBUTES = ("rerun_of", "run_uid", "traceback", "prune_detail")
SYSTEM_ATTRIBUTES = ("hpo:attempt", "hpo:lost", "hpo:untrained")
RUNG = "completed_rung_"
CONSTRAINT = "constraints"

_ROW = np.dtype(
    [
        ("id", np.int64),
        ("state", np.int8),
        ("value", np.float64),
        ("last_step", np.int64),
        ("last_value", np.float64),
        ("infeasible", np.float64),
        ("untrained", np.float64),
        ("rerun_of", np.int64),
        ("attempt", np.int64),
        ("has_run", np.bool_),
        ("was_told", np.bool_),
        ("has_failed", np.bool_),
    ]
)
_EMPTY = (-1, ABSENT, np.nan, -1, np.nan, 0.0, np.nan, -1, -1, False, False, False)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """One kind of value of some trials, as the database returns it.

    Attributes:
        kind: `trial`, `value`, `param`, `report` (of complete trials), `last`, `user` or `system`.
        name: Name of the state, the parameter or the attribute; the step of a report.
        extra: The distribution of a parameter, as JSON.
        numbers: The trials' numbers.
        values: Ids for `trial`, steps for `last`, JSON texts for attributes, else numbers.
    """

    kind: str
    name: str
    extra: str
    numbers: Sequence[int]
    values: Sequence[Any]


class Column:
    """A parameter of all trials.

    Attributes:
        value: The parameter as Optuna stores it: a choice's index, a number itself; NaN where a
            trial lacks it.
        kind: Index into `History.distributions`; -1 where a trial lacks it.
    """

    def __init__(self, value: Floats, kind: Ints) -> None:
        self.value, self.kind = value, kind


class History:
    """The trials of a study.

    Attributes:
        size: The highest number of a trial, and one.
        distributions: The distributions of all parameters; equal ones are one.
        reports: The values that complete trials reported, by step, in no order.
        rungs: The values that trials noted at rungs of successive halving: name, number, value.
    """

    def __init__(self) -> None:
        self.size = 0
        self._rows = np.full(64, np.array(_EMPTY, dtype=_ROW))
        self._params: dict[str, Column] = {}
        self.distributions: list[BaseDistribution] = []
        self._by_json: dict[str, int] = {}
        self._ranges: dict[BaseDistribution, int] = {}
        self.reports: dict[int, array[float]] = {}
        self.rungs: dict[str, dict[int, float]] = {}

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial]) -> History:
        """The columns of Optuna's objects."""
        history = cls()
        for trial in trials:
            history.add(rows_of(trial))
        return history

    @property
    def rows(self) -> NDArray[Any]:
        """A structured array with a row for each number up to `size`.

        Its fields: `id`; `state`, a number of `TrialState`, or `ABSENT`; `value`, NaN without one;
        `last_step`, -1 without one, and `last_value`, what an ended trial reported there;
        `infeasible`, the sum of its violations; `untrained`, the metric of its untrained network,
        NaN without one; `rerun_of`, the trial that it repeats in a wider precision, or -1;
        `attempt`, the one that ended it, -1 if none is noted; `has_run`, whether a worker of this
        service began it; `was_told`, whether another program ended it; `has_failed`, whether it
        failed by what its objective did.
        """
        return self._rows[: self.size]

    @property
    def params(self) -> dict[str, Column]:
        """The parameters by name, cut to `size`."""
        return {
            name: Column(column.value[: self.size], column.kind[: self.size])
            for name, column in self._params.items()
        }

    def params_of(self, number: int) -> dict[str, Any]:
        """A trial's parameters by name, as an objective gets them."""
        return {
            name: self.distributions[kind].to_external_repr(float(column.value[number]))
            for name, column in self._params.items()
            if (kind := int(column.kind[number])) >= 0
        }

    def add(self, found: Iterable[Rows]) -> None:
        """Add what was read of some trials; the states come first."""
        for one in found:
            numbers = np.asarray(one.numbers, dtype=np.int64)
            if numbers.size:
                self._make_room(int(numbers.max()) + 1)
                getattr(self, f"_add_{one.kind}")(one, numbers)

    def forget(self, number: int) -> None:
        """Drop a trial that was deleted."""
        if number < self.size:
            self._rows[number] = _EMPTY
            for column in self._params.values():
                column.value[number], column.kind[number] = np.nan, -1
            for values in self.rungs.values():
                values.pop(number, None)

    def _make_room(self, size: int) -> None:
        self.size = max(self.size, size)
        lacking = self.size - len(self._rows)
        if lacking > 0:
            more = max(lacking, len(self._rows))
            self._rows = np.append(self._rows, np.full(more, np.array(_EMPTY, dtype=_ROW)))
            for column in self._params.values():
                column.value = np.append(column.value, np.full(more, np.nan))
                column.kind = np.append(column.kind, np.full(more, -1))

    def _add_trial(self, one: Rows, numbers: Ints) -> None:
        self._rows["state"][numbers] = TrialState[one.name].value
        self._rows["id"][numbers] = np.asarray(one.values, dtype=np.int64)

    def _add_value(self, one: Rows, numbers: Ints) -> None:
        self._rows["value"][numbers] = np.asarray(one.values, dtype=np.float64)

    def _add_param(self, one: Rows, numbers: Ints) -> None:
        column = self._params.get(one.name)
        if column is None:
            size = len(self._rows)
            column = self._params[one.name] = Column(np.full(size, np.nan), np.full(size, -1))
        column.value[numbers] = np.asarray(one.values, dtype=np.float64)
        column.kind[numbers] = self._kind_of(one.extra)

    def _kind_of(self, text: str) -> int:
        kind = self._by_json.get(text)
        if kind is None:
            kind = self._by_json[text] = self._index_of(json_to_distribution(text))
        return kind

    def _index_of(self, distribution: BaseDistribution) -> int:
        # Choices may be none that can be hashed, but Optuna lets them differ in no two trials. An
        # objective's own `suggest` may give each trial another range.
        if not isinstance(distribution, CategoricalDistribution):
            index = self._ranges.setdefault(distribution, len(self.distributions))
        elif distribution in self.distributions:
            index = self.distributions.index(distribution)
        else:
            index = len(self.distributions)
        if index == len(self.distributions):
            self.distributions.append(distribution)
        return index

    def _add_report(self, one: Rows, numbers: Ints) -> None:
        self.reports.setdefault(int(one.name), array("d")).extend(map(float, one.values))

    def _add_last(self, one: Rows, numbers: Ints) -> None:
        """Add the last report, whose step is `name`."""
        self._rows["last_step"][numbers] = int(one.name)
        self._rows["last_value"][numbers] = np.asarray(one.values, dtype=np.float64)

    def _add_user(self, one: Rows, numbers: Ints) -> None:
        if one.name == "rerun_of":
            self._rows["rerun_of"][numbers] = [_whole(text) for text in one.values]
        elif one.name == "run_uid":
            self._rows["has_run"][numbers] = True
        elif one.name == "traceback":
            self._rows["has_failed"][numbers[self._rows["state"][numbers] == _FAIL]] = True
        elif one.name == "prune_detail":
            told = [text == json.dumps(ENDED_OUTSIDE) for text in one.values]
            self._rows["was_told"][numbers] |= np.array(told)

    def _add_system(self, one: Rows, numbers: Ints) -> None:
        if one.name == "hpo:attempt":
            self._rows["attempt"][numbers] = [_whole(text) for text in one.values]
        elif one.name == "hpo:lost":
            self._rows["has_failed"][numbers[self._rows["state"][numbers] == _FAIL]] = True
        elif one.name == "hpo:untrained":
            self._rows["untrained"][numbers] = [_number(text) for text in one.values]
        elif one.name.startswith(RUNG):
            values = self.rungs.setdefault(one.name, {})
            values.update(zip(numbers.tolist(), map(_number, one.values), strict=True))
        elif one.name.startswith(CONSTRAINT):
            # Optuna up to version 4 stores a list under one key.
            self._rows["infeasible"][numbers] += [_violation(text) for text in one.values]


_FAIL = TrialState.FAIL.value
_MOST = np.iinfo(np.int64).max


# Another program may have written anything under the names of these attributes.
def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(text: str) -> int:
    value = json.loads(text)
    return value if isinstance(value, int) and abs(value) <= _MOST else -1


def _violation(text: str) -> float:
    value = json.loads(text)
    several = value if isinstance(value, list) else [value]
    return float(sum(one for one in several if isinstance(one, int | float) and one > 0))


def rows_of(trial: FrozenTrial) -> list[Rows]:
    """What the database would return of one trial."""
    number = [trial.number]

    def rows(kind: str, name: object, value: Any, extra: str = "") -> Rows:
        return Rows(kind, str(name), extra, number, [value])

    found = [rows("trial", trial.state.name, trial._trial_id)]
    for name, distribution in trial.distributions.items():
        stored = distribution.to_internal_repr(trial.params[name])
        found.append(rows("param", name, stored, distribution_to_json(distribution)))
    if not trial.state.is_finished():
        noted = [(key, v) for key, v in trial.system_attrs.items() if key.startswith(RUNG)]
        return found + [rows("system", key, json.dumps(value)) for key, value in noted]
    if trial.values:
        found.append(rows("value", "", trial.values[0]))
    if trial.last_step is not None:
        found.append(rows("last", trial.last_step, trial.intermediate_values[trial.last_step]))
    if trial.state == TrialState.COMPLETE:
        found += [rows("report", step, v) for step, v in trial.intermediate_values.items()]
    for kind, attributes in (("user", trial.user_attrs), ("system", trial.system_attrs)):
        found += [rows(kind, name, json.dumps(value)) for name, value in attributes.items()]
    return found
