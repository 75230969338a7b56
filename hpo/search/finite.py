"""Spaces of few configurations: their number, and the choice of one that no trial has yet.

Only choices and whole numbers can be counted, and only where the objective's `suggest` asks for
its space as declared. Border: pure functions; `hpo.worker.untried` gives a trial what they choose.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from hpo.database.history import History
from objectives import Choice, Int, Objective, Params, Space

# Of a long range so many values are looked at, drawn at random.
_LOOKED_AT = 100
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


def keys_in(history: History, space: Space, *, but: int) -> set[Key]:
    """The keys of all configurations that trials have, except for one trial's own."""
    columns = history.params
    if any(name not in columns for name in space):
        return set()
    has_all = np.arange(history.size) != but
    # Equal configurations have one code; among thousands of trials few differ.
    code = np.zeros(history.size, dtype=np.int64)
    for name in space:
        column = columns[name]
        has_all &= column.kind >= 0
        for part in (column.kind, column.value):
            distinct, place = np.unique(part, return_inverse=True)
            _, code = np.unique(code * len(distinct) + place, return_inverse=True)
    numbers = np.flatnonzero(has_all)
    _, first = np.unique(code[numbers], return_index=True)
    keys = (key_of(history.params_of(int(number)), space) for number in numbers[first])
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
