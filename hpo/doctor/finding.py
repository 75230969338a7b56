"""The finding of a check, and the conversion of an exception into one.

Border: holds no check; these are in `diagnose`, `machine`, `database` and `torch_check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from hpo.errors import HpoError

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The finding of one check.

    Attributes:
        cure: The command or setting that repairs it; empty if nothing is wrong.
    """

    name: str
    state: State
    found: str
    cure: str = ""


def ok(name: str, found: str) -> Finding:
    return Finding(name=name, state="ok", found=found)


def warning(name: str, found: str, cure: str) -> Finding:
    return Finding(name=name, state="warning", found=found, cure=cure)


def failed(name: str, found: str, cure: str = "") -> Finding:
    return Finding(name=name, state="failed", found=found, cure=cure)


def guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield a check's findings; an exception becomes one more and does not end the others."""
    try:
        yield from check()
    except HpoError as error:  # its message holds the cure
        yield failed(name, str(error))
    except Exception as error:
        # SQLAlchemy's message repeats the statement; `orig` is the database's own error.
        lines = str(getattr(error, "orig", None) or error).strip().splitlines() or ["-"]
        yield failed(name, f"the check raised {type(error).__name__}: {lines[0]}")
