"""What one of the doctor's checks found, and how a check that raises becomes a finding.

Border: no check is here; each part of the machine has a `doctor_` module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from hpo.errors import HpoError

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found.

    Attributes:
        cure: The command or the setting that mends it; empty where nothing is wrong.
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
    """A check's findings; whatever it raises is one of them, and the others go on."""
    try:
        yield from check()
    except HpoError as error:  # its message holds the cure
        yield failed(name, str(error))
    except Exception as error:
        # SQLAlchemy's own text repeats the statement; the database's is its `orig`.
        lines = str(getattr(error, "orig", None) or error).strip().splitlines() or ["-"]
        yield failed(name, f"the check raised {type(error).__name__}: {lines[0]}")
