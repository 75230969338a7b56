"""Values as the storage gives them back, so that a trial is trained with what is recorded of it.

Optuna stores a number as a double and a choice as its place among the choices, which are JSON. An
interrupted trial reads its parameters back from there, and so does every other program.

Border: one value; `narrowing` asks for it wherever a trial is asked for a parameter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

# The largest whole number up to which a double holds every one.
LARGEST = 2**53
_PLAIN = (str, int, float, bool, type(None))


def is_stored(choice: Any) -> bool:
    """Return whether a choice comes back from the storage as the plain value that it is.

    An enumeration's member, a text of an own class, a tuple or NaN does not. A numpy number that is
    a float does: every trial is built with plain numbers.
    """
    value = plain(choice)
    if type(value) not in _PLAIN or (isinstance(value, float) and not math.isfinite(value)):
        return False
    # PostgreSQL stores neither a NUL nor half of a pair of surrogates.
    is_text = type(value) is str
    return not is_text or ("\0" not in value and value == value.encode("utf-8", "replace").decode())


def plain(value: Any) -> Any:
    """A numpy number that is a float, or a text, as Python's; everything else as it is."""
    if isinstance(value, float | str) and hasattr(value, "item"):
        return value.item()
    return value


def number(name: str, value: Any, *, is_whole: bool) -> float | int:
    """A suggested number as it is stored and read.

    Raises:
        ValueError: It is stored as another number.
    """
    # Adding 0 makes a zero of a negative zero, as the number's way through SQL does.
    stored = float(value) + 0.0
    if not is_whole:
        return stored
    if int(stored) != value:
        raise ValueError(
            f"'{name}' is {value}, beyond {LARGEST} (2**53): it would be recorded as "
            f"{int(stored)}; search an exponent, or an index into a table"
        )
    return int(stored)


def choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """A suggested choice as it is stored and read.

    Raises:
        ValueError: It is recorded as another value.
    """
    equal = [one for one in choices if one is value or one == value]
    if len(equal) > 1:
        raise ValueError(
            f"'{name}' has the choices {equal[0]!r} and {equal[1]!r}, which are equal: one would "
            "be recorded as the other; leave one out, or name them by texts"
        )
    one = equal[0] if equal else value
    if not is_stored(one):
        raise ValueError(
            f"'{name}' has the choice {one!r}, which would be recorded as another value; choose "
            "among texts, finite numbers, True, False and None, and look the rest up in build()"
        )
    return json.loads(json.dumps(plain(one)))
