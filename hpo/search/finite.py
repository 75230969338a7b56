"""Spaces of few configurations: their number, and the choice of one that no trial has yet.

Only choices and whole numbers can be counted, and only where the objective's `suggest` asks for
its space as declared. Border: pure functions; `hpo.worker.untried` gives a trial what they choose.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from optuna.trial import TrialState

from hpo.database.history import ABSENT, History
from objectives import Choice, Int, Objective, Params, Space

# Of a long range so many values are looked at, drawn at random.
_LOOKED_AT = 100
_ENDED = {state.value for state in TrialState if state.is_finished()}
Key = tuple[str, ...]


def configurations(objective: Objective, space: Space) -> int | None:
    """The number of configurations of a narrowed space; None if it cannot be counted."""
    if type(objective).suggest is not Objective.suggest:
        return None
    sizes = [len(values) for values in map(_values, space.values()) if values is not None]
    return math.prod(sizes) if len(sizes) == len(space) else None


def _values(spec: Any) -> Sequence[Any] | None:
    """The values of a parameter; None if they cannot be counted."""
    if isinstance(spec, Choice):
        return spec.choices
    if isinstance(spec, Int):
        return range(spec.low, spec.high + 1)
    return (spec.low,) if spec.low == spec.high else None


def key_of(params: Params, space: Space) -> Key | None:
    """A key that equal configurations of a space share; None if a parameter is missing."""
    if any(name not in params for name in space):
        return None
    return tuple(_text(params[name]) for name in space)


# The keys of ended trials, which never change, by number and id, for a history's last space.
# After a deletion another trial may have the number.
_known: WeakKeyDictionary[History, tuple[Space, dict[tuple[int, int], Key | None]]] = (
    WeakKeyDictionary()
)


def keys_in(history: History, space: Space, *, but: int) -> set[Key]:
    """The keys of all configurations that trials have, except for one trial's own."""
    of, known = _known.get(history, (None, {}))
    if of != space:
        known = {}
        _known[history] = space, known
    keys = set()
    rows = history.rows
    for number, trial_id, state in zip(
        range(len(rows)), rows["id"].tolist(), rows["state"].tolist(), strict=True
    ):
        trial = number, trial_id
        if number == but or state == ABSENT:
            continue
        if trial in known:
            keys.add(known[trial])
            continue
        key = key_of(history.params_of(number), space)
        # Most values occur in many trials, so that their texts are kept once.
        key = None if key is None else tuple(map(sys.intern, key))
        keys.add(key)
        if state in _ENDED:
            known[trial] = key
    return {key for key in keys if key is not None}


def _text(value: Any) -> str:
    # A 1 and a 1.0 are equal, and one of them may come from JSON.
    return repr(int(value) if isinstance(value, float) and value.is_integer() else value)


def untried(
    proposed: Params,
    space: Space,
    tried: Collection[Key],
    *,
    seed: int,
    avoided: Collection[tuple[str, str]] = (),
) -> Mapping[str, Any] | None:
    """The proposed configuration, or one in its place that has not been tried; None without one.

    It differs in one parameter where that suffices, so that most of a sampler's choice remains.

    Args:
        avoided: Names and values, as `repr` writes them, that no configuration is to have.
    """
    if key_of(proposed, space) not in tried:
        return proposed
    values = {
        name: [value for value in found if (name, repr(value)) not in avoided]
        if len(found) <= _LOOKED_AT
        else found
        for name, spec in space.items()
        if (found := _values(spec)) is not None
    }
    draw = random.Random(seed)
    for name in draw.sample(list(values), len(values)):
        for value in draw.sample(values[name], min(len(values[name]), _LOOKED_AT)):
            other = {**proposed, name: value}
            if key_of(other, space) not in tried:
                return other
    return _next(values, space, tried, draw)


def _next(
    values: Mapping[str, Sequence[Any]], space: Space, tried: Collection[Key], draw: random.Random
) -> Mapping[str, Any] | None:
    """The first untried configuration in the order of the space, from a random one on."""
    total = math.prod(len(some) for some in values.values())
    if not total:
        return None
    begin = draw.randrange(total)
    # Among one more than were tried, one is untried.
    for number in range(min(total, len(tried) + 1)):
        index = (begin + number) % total
        found = {}
        for name, some in values.items():
            index, place = divmod(index, len(some))
            found[name] = some[place]
        if key_of(found, space) not in tried:
            return found
    return None
