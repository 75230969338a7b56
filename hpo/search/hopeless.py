"""Values of choices and integers with which every trial fails.

Batch normalization refuses a batch of 1, and no sampler learns from a failed trial. A value is
hopeless once all its trials have failed, at least three, and either

- failures that fell on the study's trials at random would hit all of these once in 200 times or
  less: k failed with the value, F of n in all, C(F, k) / C(n, k) <= 1/200; or
- they are five or more, no other trial failed, and one with another value ended well: five
  failures in a row would end a run, and the other values are worth trying first.

Where one value explains the failures of another, the one with more of them counts; where two have
the very same trials, neither does. Border: pure functions of trials, as Optuna's objects or in
columns; `samplers` avoids the values.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from hpo.database.history import Column, History, Ints

LEAST = 3
_CHANCES = 200
# A run ends at so many failures in a row.
_ROW = 5
_WELL = (TrialState.COMPLETE, TrialState.PRUNED)

# This system attribute marks a trial that failed because it ended its workers.
LOST = "hpo:lost"

# A parameter and one of its values as text, which tells 1 from True.
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Hopeless:
    """A value with which every trial fails.

    Attributes:
        failed: Trials with it, all of them failed.
        others: Ended trials without it, except those that another such value explains.
        others_failed: The failed ones among these.
    """

    name: str
    value: Any
    failed: int
    others: int
    others_failed: int

    def __str__(self) -> str:
        return f"{self.name}={self.value}"

    def sentence(self) -> str:
        """The finding in words."""
        rest = f"{self.others_failed} of {self.others} others"
        return (
            f"{self.failed} of {self.failed} trials with {self} failed, "
            f"{rest if self.others_failed else 'none of the others'}"
        )


@dataclass(kw_only=True)
class _Count:
    """The trials of a study by the values of choices and integers.

    Attributes:
        failed: Numbers of all failed trials.
        well: Number of complete and pruned trials.
        by_value: Numbers of the failed trials with a value.
        values: The values themselves.
        cleared: Values with which a trial ended well.
        tried: Parameters that a trial that ended well has.
    """

    failed: set[int]
    well: int = 0
    by_value: dict[Key, set[int]] = field(default_factory=dict)
    values: dict[Key, Any] = field(default_factory=dict)
    cleared: set[Key] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)

    def add_failed(self, key: Key | None, value: Any, numbers: Iterable[int]) -> None:
        if key is not None:
            self.values[key] = value
            self.by_value.setdefault(key, set()).update(numbers)

    def found(self) -> list[Hopeless]:
        """The values with which every trial fails, the most frequent first."""
        numbers = {
            key: own
            for key, own in self.by_value.items()
            # A value has no alternative where no other one of its parameter has ended well.
            if len(own) >= LEAST and key not in self.cleared and key[0] in self.tried
        }
        # Of equally frequent ones the first to fail comes first.
        ordered = sorted(numbers, key=lambda key: (min(numbers[key]), key))
        numbers = {key: numbers[key] for key in ordered}
        return list(_explained(numbers, self.values, failed=self.failed, well=self.well))


def hopeless(trials: Sequence[FrozenTrial]) -> list[Hopeless]:
    """The values of a study's trials with which every trial fails, the most frequent first."""
    failed = [trial for trial in trials if has_failed(trial)]
    if len(failed) < LEAST:
        return []
    count = _Count(failed={trial.number for trial in failed})
    for trial in failed:
        for name, value in trial.params.items():
            key = key_of(name, value, trial.distributions[name])
            count.add_failed(key, value, [trial.number])
    names = {name for name, _ in count.by_value}
    for trial in trials:
        if trial.state in _WELL:
            count.well += 1
            for name in names & trial.params.keys():
                count.tried.add(name)
                key = key_of(name, trial.params[name], trial.distributions[name])
                if key is not None:
                    count.cleared.add(key)
    return count.found()


def hopeless_in(history: History) -> list[Hopeless]:
    """The same of a study's columns, in a millisecond at 10,000 trials."""
    rows = history.rows
    failed = np.flatnonzero(rows["has_failed"])
    if len(failed) < LEAST:
        return []
    well = np.flatnonzero(np.isin(rows["state"], [state.value for state in _WELL]))
    count = _Count(failed=set(failed.tolist()), well=len(well))
    for name, column in history.params.items():
        for key, value, is_own in _values(history, name, column, failed):
            count.add_failed(key, value, failed[is_own(failed)].tolist())
        if any(own == name for own, _ in count.by_value):
            count.cleared |= {key for key, _, _ in _values(history, name, column, well)}
        if (column.kind[well] >= 0).any():
            count.tried.add(name)
    return count.found()


def _values(
    history: History, name: str, column: Column, numbers: Ints
) -> Iterator[tuple[Key, Any, Callable[[Ints], NDArray[np.bool_]]]]:
    """The values of a choice or an integer in these trials, and a test of trials for each."""
    for kind in np.flatnonzero(np.bincount(column.kind[numbers] + 1)[1:]).tolist():
        distribution = history.distributions[kind]
        if not isinstance(distribution, CategoricalDistribution | IntDistribution):
            continue
        for stored in np.unique(column.value[numbers[column.kind[numbers] == kind]]).tolist():
            value = distribution.to_external_repr(stored)
            key = key_of(name, value, distribution)
            if key is not None:
                yield key, value, partial(_holds, column, kind, stored)


def _holds(column: Column, kind: int, stored: float, numbers: Ints) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (column.kind[numbers] == kind) & (column.value[numbers] == stored)
    return found


def _explained(
    numbers: Mapping[Key, set[int]], values: Mapping[Key, Any], *, failed: set[int], well: int
) -> Iterator[Hopeless]:
    """The values that explain failures; each failure is explained once."""
    left = dict(numbers)
    while left:
        count = max(len(own) for own in left.values())
        own = next(own for own in left.values() if len(own) == count)
        same = [key for key in left if left[key] == own]
        others_failed = len(failed - own)
        others = well + others_failed
        is_rare = _CHANCES * comb(count + others_failed, count) <= comb(count + others, count)
        is_row = count >= _ROW and not others_failed
        if len(same) == 1 and (is_rare or is_row):
            key = same[0]
            yield Hopeless(
                name=key[0],
                value=values[key],
                failed=len(numbers[key]),
                others=others,
                others_failed=others_failed,
            )
            failed = failed - own
            left = {key: rest - own for key, rest in left.items() if len(rest - own) >= LEAST}
        else:
            left = {key: rest for key, rest in left.items() if rest != own}


def has_failed(trial: FrozenTrial) -> bool:
    """Return whether a trial failed by what its objective did, and not from outside."""
    is_own = "traceback" in trial.user_attrs or LOST in trial.system_attrs
    return trial.state == TrialState.FAIL and is_own


def holds(trial: FrozenTrial, found: Sequence[Hopeless]) -> bool:
    """Return whether a trial has one of these values."""
    return any(
        one.name in trial.params and repr(trial.params[one.name]) == repr(one.value)
        for one in found
    )


def key_of(name: str, value: Any, distribution: BaseDistribution) -> Key | None:
    """The key of a value of a choice or an integer; None for a parameter of another kind."""
    if isinstance(distribution, IntDistribution):
        # A sampler may propose an integer of numpy's.
        return name, repr(int(value))
    return (name, repr(value)) if isinstance(distribution, CategoricalDistribution) else None


def instead(
    name: str,
    value: Any,
    distribution: BaseDistribution,
    *,
    avoided: Container[Key],
    rng: random.Random,
) -> Any:
    """A value in place of one to avoid: another choice, or the nearest integer; else itself."""
    if key_of(name, value, distribution) not in avoided:
        return value
    if isinstance(distribution, CategoricalDistribution):
        allowed = [one for one in distribution.choices if (name, repr(one)) not in avoided]
        return rng.choice(allowed) if allowed else value
    if isinstance(distribution, IntDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        for distance in range(step, high - low + 1, step):
            for other in (int(value) - distance, int(value) + distance):
                if low <= other <= high and (name, repr(other)) not in avoided:
                    return other
    return value
