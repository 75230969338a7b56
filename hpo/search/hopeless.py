"""Values of choices and integers with which every trial fails.

Batch normalization refuses a batch of 1, and no sampler learns from a failed trial. A value is
hopeless once all its trials have failed, at least three, and either

- failures that fell on the study's trials at random would hit all of these once in 200 times or
  less: k failed with the value, F of n in all, C(F, k) / C(n, k) <= 1/200; or
- they are five or more, no other trial failed, and one with another value ended well: five
  failures in a row would end a run, and the other values are worth trying first.

Where one value explains the failures of another, the one with more of them counts; where two have
the very same trials, neither does. Border: a pure function of trials; `samplers` avoids the values.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

_LEAST = 3
_CHANCES = 200
# A run ends at so many failures in a row.
_ROW = 5

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


def hopeless(trials: Sequence[FrozenTrial]) -> list[Hopeless]:
    """The values of a study's trials with which every trial fails, the most frequent first."""
    failed = [trial for trial in trials if has_failed(trial)]
    if len(failed) < _LEAST:
        return []
    values: dict[Key, Any] = {}
    numbers: dict[Key, set[int]] = {}
    for trial in failed:
        for name, value in trial.params.items():
            key = key_of(name, value, trial.distributions[name])
            if key is not None:
                values[key] = value
                numbers.setdefault(key, set()).add(trial.number)
    numbers = {key: found for key, found in numbers.items() if len(found) >= _LEAST}
    names, tried, well = {name for name, _ in numbers}, set(), 0
    for trial in trials:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            well += 1
            for name in names & trial.params.keys():
                key = key_of(name, trial.params[name], trial.distributions[name])
                tried.add(name)
                if key is not None:
                    numbers.pop(key, None)
    # A value has no alternative where no other one of its parameter has ended well.
    numbers = {key: found for key, found in numbers.items() if key[0] in tried}
    return list(_explained(numbers, values, failed={t.number for t in failed}, well=well))


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
            left = {key: rest - own for key, rest in left.items() if len(rest - own) >= _LEAST}
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
