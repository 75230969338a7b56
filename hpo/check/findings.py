"""Collect the findings of an objective's checks; an exception in a check is its failure.

Border: only collects; the checks are in `structure`, `hooks`, `trials` and `steps`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpo.study.declared import Finding, State
from hpo.task.raised import described

# A message lists at most this many names and counts the others, so that it stays short.
_LISTED = 4


class Check:
    """A running check and the problems that it has found.

    Attributes:
        seen: The finding's detail if nothing is wrong.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._problems: list[Finding] = []
        self.seen = ""

    def fail(self, detail: str) -> None:
        """Record a fault that prevents a study: the reason and the cure."""
        self._note("failed", detail)

    def warn(self, detail: str) -> None:
        """Record something that works but is hardly intended: the reason and the cure."""
        self._note("warning", detail)

    def _note(self, state: State, detail: str) -> None:
        self._problems.append(Finding(name=self._name, state=state, detail=detail))

    @property
    def findings(self) -> list[Finding]:
        return self._problems or [Finding(name=self._name, state="ok", detail=self.seen)]

    @property
    def has_failed(self) -> bool:
        return any(finding.state == "failed" for finding in self._problems)

    @property
    def has_warned(self) -> bool:
        return any(finding.state == "warning" for finding in self._problems)


class Findings:
    """The findings of all checks of one objective.

    Args:
        file: The objective's source file; a failure is located at one of its lines.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.found: list[Finding] = []

    @contextmanager
    def check(self, name: str) -> Iterator[Check]:
        """Run a check; an exception in it is its failure and ends it."""
        check = Check(name)
        try:
            yield check
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # A hook may raise any class, as SystemExit by a parser of command lines.
            check.fail(raised(error, self.file))
        self.found += check.findings

    def failed(self, name: str) -> bool:
        """Return whether the check of this name failed."""
        return any(f.name == name and f.state == "failed" for f in self.found)

    @property
    def has_failed(self) -> bool:
        return any(finding.state == "failed" for finding in self.found)


def raised(error: BaseException, file: Path | None) -> str:
    """An exception in one line: type, message, and its last traceback line in the file."""
    is_exit = isinstance(error, SystemExit)
    lines = [] if is_exit else str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else described(error)
    frames = [
        (frame.lineno, frame.name)
        for frame in traceback.extract_tb(error.__traceback__)
        if file is not None and Path(frame.filename).resolve() == file
    ]
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg}, at {Path(error.filename).name}:{error.lineno}"
    if not frames or file is None:
        return said
    number, name = frames[-1]
    return f"{said}, at {file.name}:{number} in {name}"


def listed(names: Sequence[str]) -> str:
    """The first few names in quotes, for a sentence."""
    return some([f"'{name}'" for name in names])


def some(items: Sequence[str]) -> str:
    """The first few items and the number of the others."""
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
