"""Names of checkpoints: one file for each attempt at a trial.

A worker that lost its trial may still write. It writes its own file, so it replaces neither its
successor's nor the finished one. Border: names alone; `checkpoint` writes and reads.
"""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

# Files of earlier versions have no attempt; temporary ones begin with a dot.
_NAME = re.compile(r"\.?trial_(?P<number>\d+)(?:-(?P<attempt>\d+))?\.")


class _Owner(NamedTuple):
    """The trial and the attempt that a file belongs to."""

    number: int
    attempt: int


def file_of(folder: Path, number: int, attempt: int) -> Path:
    """Path of an attempt's checkpoint; attempt 0 is the file of an earlier version."""
    return folder / f"trial_{number:05d}{f'-{attempt}' if attempt else ''}.pt"


def earlier(path: Path) -> list[Path]:
    """The existing files of this attempt and of earlier ones at its trial, the latest first.

    A path of any other name has no earlier ones.
    """
    owner = _owner(path)
    if owner is None:
        return [path] if path.exists() else []
    found = {file: _owner(file) for file in path.parent.glob("trial_*.pt")}
    same = {f: o for f, o in found.items() if o and o.number == owner.number and o <= owner}
    return sorted(same, key=lambda file: same[file].attempt, reverse=True)


def attempt_of(path: Path) -> int:
    """The attempt whose file this is; 0 for that of an earlier version."""
    owner = _owner(path)
    return 0 if owner is None else owner.attempt


def sweep(folder: Path, ended: Container[int], *, keep: tuple[int, int] | None) -> None:
    """Delete the checkpoints of ended trials, temporary files too.

    Args:
        keep: The trial and the attempt whose checkpoint stays.
    """
    for file in (*folder.glob("trial_*"), *folder.glob(".trial_*.tmp")):
        owner = _owner(file)
        if owner is None or owner.number not in ended:
            continue
        if owner != keep or file.suffix != ".pt":
            file.unlink(missing_ok=True)


def discard(folder: Path, number: int, attempts: int, *, but: int | None = None) -> None:
    """Delete a trial's checkpoints by their names, which takes no listing of the folder.

    Args:
        attempts: The number of the trial's last attempt.
        but: The attempt whose checkpoint stays.
    """
    for attempt in range(attempts + 1):
        if attempt != but:
            file_of(folder, number, attempt).unlink(missing_ok=True)


def _owner(path: Path) -> _Owner | None:
    found = _NAME.match(path.name)
    return found and _Owner(int(found["number"]), int(found["attempt"] or 0))
