"""The part of a study's history that a sampler sees: trials, their common space, TPE's split.

`sampler_view` shows the same of Optuna's objects. A first run is hidden once its rerun has ended.
A sampler that reads complete trials alone is shown pruned and diverged ones as complete.

Border: pure functions of columns; `tpe` samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.database.history import ABSENT, Column, Floats, History, Ints

_COMPLETE, _PRUNED = TrialState.COMPLETE.value, TrialState.PRUNED.value
_RUNNING = TrialState.RUNNING.value
_MAXIMIZE = StudyDirection.MAXIMIZE
# The fields of a row by which trials are split.
_SHOWN = ["state", "value", "last_step", "last_value", "infeasible", "untrained"]


def history_of(study: optuna.Study) -> History | None:
    """The history that a study's storage keeps in columns; None if it is a plain Optuna storage."""
    read = getattr(study._storage, "history", None)
    found: History | None = None if read is None else read(study._study_id)
    return found


class Shown:
    """The trials that a sampler is shown when it is asked for one of them.

    Attributes:
        history: The columns that all numbers below refer to.
        ended: Numbers of complete and pruned trials, ascending.

    Args:
        asked: The number of the trial that is asked for.
        reads_pruned: False for a sampler that reads complete trials alone, which is shown what
            `sampler_view.as_complete` makes of the others.
    """

    def __init__(self, history: History, *, asked: int, reads_pruned: bool = True) -> None:
        self.history = history
        self._rows = history.rows[_SHOWN]
        self._state = self._rows["state"].copy()
        first = _superseded(history.rows)
        self._state[first] = ABSENT
        self._state[asked : asked + 1] = ABSENT
        if not reads_pruned:
            self._rows = self._rows.copy()
            _complete(self._rows, self._state, first)
        self.ended = np.flatnonzero((self._state == _COMPLETE) | (self._state == _PRUNED))

    def space(self) -> dict[str, BaseDistribution]:
        """The parameters that all complete and pruned trials have with one distribution, by name.

        As Optuna's `IntersectionSearchSpace(include_pruned=True)` finds them.
        """
        found: dict[str, BaseDistribution] = {}
        if not len(self.ended):
            return found
        for name, column in sorted(self.history.params.items()):
            kinds = column.kind[self.ended]
            if kinds[0] >= 0 and (kinds == kinds[0]).all():
                found[name] = self.history.distributions[kinds[0]]
        return found

    def split(self, n_below: int, direction: StudyDirection) -> tuple[Ints, Ints]:
        """The numbers of the best trials, and of all others with the running ones; both ascending.

        As Optuna's `_split_trials`: the best are complete trials by value, then pruned ones by
        their last step, the later the better, and by their value there, then infeasible ones by
        the sum of their violations. Equal ones keep the order of their numbers.
        """
        below = self._best(n_below, direction)
        is_above = self._state == _RUNNING
        is_above[self.ended] = True
        is_above[below] = False
        above: Ints = np.flatnonzero(is_above)
        return np.sort(below), above

    def _best(self, count: int, direction: StudyDirection) -> Ints:
        """The numbers of so many complete and pruned trials, the best first."""
        rows, ended = self._rows, self.ended
        sign = -1.0 if direction == _MAXIMIZE else 1.0
        is_feasible = rows["infeasible"][ended] <= 0
        is_complete = self._state[ended] == _COMPLETE
        complete = ended[is_complete & is_feasible]
        found: Ints = complete[_least(sign * rows["value"][complete], count)]
        if len(found) < count:
            pruned = ended[~is_complete & is_feasible]
            step, value = rows["last_step"][pruned], sign * rows["last_value"][pruned]
            value[np.isnan(value)] = np.inf
            infeasible = ended[~is_feasible]
            violation = rows["infeasible"][infeasible]
            others = (
                pruned[np.lexsort((value, -step))],
                infeasible[np.argsort(violation, kind="stable")],
            )
            found = np.concatenate((found, *others))[:count]
        return found


def _least(values: Floats, count: int) -> Ints:
    """The indices of the least values in ascending order; equal ones in the order of indices."""
    some = np.arange(len(values))
    if 0 < count < len(values):
        some = np.flatnonzero(values <= np.partition(values, count - 1)[count - 1])
    found: Ints = some[np.argsort(values[some], kind="stable")][:count]
    return found


def observations(
    history: History, numbers: Ints, space: Mapping[str, BaseDistribution]
) -> dict[str, Floats]:
    """The parameters of those trials that have all of a space, as Optuna stores them."""
    columns = history.params
    if not space.keys() <= columns.keys():
        return {name: np.array([]) for name in space}
    for name in space:
        numbers = numbers[columns[name].kind[numbers] >= 0]
    return {
        name: _stored(history, columns[name], numbers, distribution)
        for name, distribution in space.items()
    }


def _stored(
    history: History, column: Column, numbers: Ints, distribution: BaseDistribution
) -> Floats:
    """The values of trials as they are stored under this distribution."""
    values, kinds = column.value[numbers], column.kind[numbers]
    for kind, own in enumerate(history.distributions):
        # A number is stored as itself, whatever its range.
        if not _is_choice(own, distribution) or own == distribution:
            continue
        where = np.flatnonzero(kinds == kind)
        values[where] = [
            distribution.to_internal_repr(own.to_external_repr(value)) for value in values[where]
        ]
    return values


def _is_choice(*distributions: BaseDistribution) -> bool:
    return any(isinstance(one, CategoricalDistribution) for one in distributions)


def _complete(rows: NDArray[Any], state: NDArray[np.int8], first: Ints) -> None:
    """Complete pruned and diverged trials, in place, as `sampler_view.as_complete` does.

    The value that it gives to a diverged trial is not needed here: TPE sorts those by violation.
    But without any value to give, the trial is left out.
    """
    ended = np.flatnonzero((state == _COMPLETE) | (state == _PRUNED))
    is_pruned = state[ended] == _PRUNED
    is_diverged = is_pruned & (rows["infeasible"][ended] > 0)
    last = rows["last_value"][ended]
    reached = np.where(is_pruned, last, rows["value"][ended])
    has_value = ~is_diverged & (~is_pruned | np.isfinite(last))
    # A rerun inherits the untrained metric of its first run.
    noted = np.isfinite(rows["untrained"][np.append(ended, first)])
    has_value |= is_diverged & (has_value.any() | noted.any())
    rows["value"][ended] = reached
    state[ended] = np.where(has_value, _COMPLETE, ABSENT)


def _superseded(rows: NDArray[Any]) -> Ints:
    """The numbers of the trials that a complete or pruned rerun replaces."""
    rerun = np.flatnonzero(rows["rerun_of"] >= 0)
    rerun = rerun[np.isin(rows["state"][rerun], (_COMPLETE, _PRUNED))]
    first: Ints = rows["rerun_of"][rerun]
    return first[first < rerun]
