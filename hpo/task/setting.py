"""A setting of this process, which can be kept and restored.

Border: the form of a setting; `process_python` and `process_torch` list them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A setting of this process.

    Attributes:
        name: A clause that names it to users.
        capture: Returns its value.
        restore: Sets it to a captured value; returns True if it had changed.
    """

    name: str
    capture: Callable[[], Any]
    restore: Callable[[Any], bool]


def compared(name: str, get: Callable[[], Any], set: Callable[[Any], object]) -> Setting:
    """A setting that is set again only if what `get` returns has changed."""

    def restore(kept: Any) -> bool:
        try:
            is_changed = bool(get() != kept)
        except RuntimeError:
            # torch's older getters refuse to describe what a newer setter has set.
            is_changed = True
        if is_changed:
            set(kept)
        return is_changed

    return Setting(name, get, restore)


def attribute(name: str, owner: Any, key: str) -> Setting:
    """A setting that is an attribute of a module or an object."""
    return compared(name, lambda: getattr(owner, key), lambda value: setattr(owner, key, value))
