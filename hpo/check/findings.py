"""Checks while they run: what each of them finds, and an exception in one as its failure.

Border: collects; what is checked is `hooks`' and `rehearsal`'s.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpo.study.declared import Finding, State

# So many names are listed before the rest is counted.
_LISTED = 4


class Check:
    """One check while it runs.

    Attributes:
        seen: What is told of it if nothing is wrong.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._problems: list[Finding] = []
        self.seen = ""

    def fail(self, detail: str) -> None:
        """What could not work: the reason and the cure."""
        self._note("failed", detail)

    def warn(self, detail: str) -> None:
        """What works, and is hardly meant: the reason and the cure."""
        self._note("warning", detail)

    def _note(self, state: State, detail: str) -> None:
        self._problems.append(Finding(name=self._name, state=state, detail=detail))

    @property
    def findings(self) -> list[Finding]:
        return self._problems or [Finding(name=self._name, state="ok", detail=self.seen)]

    @property
    def has_failed(self) -> bool:
        return any(finding.state == "failed" for finding in self._problems)


class Findings:
    """What the checks of one objective found.

    Args:
        file: The objective's own, in whose lines a failure is placed.
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
        except Exception as error:
            check.fail(raised(error, self.file))
        self.found += check.findings

    def failed(self, name: str) -> bool:
        """Whether the check of this name failed."""
        return any(f.name == name and f.state == "failed" for f in self.found)

    @property
    def has_failed(self) -> bool:
        return any(finding.state == "failed" for finding in self.found)


def raised(error: BaseException, file: Path | None) -> str:
    """An exception in a line: type, message, and the last line of the file on its way."""
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
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
    """Names in quotes for a sentence, the first few of them."""
    return some([f"'{name}'" for name in names])


def some(items: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
