"""One checkpoint on its way to a store that other hosts reach, or from there to a local file.

Border: whether a copy is whole, and which one is the newest. `depot` decides when and says what
happened; `StoredCheckpoints` and `Objects` store.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from hpo import files
from hpo.database.checkpoints import Copy, Origin
from hpo.engine import checkpoint_files
from hpo.tickets.ticket import Ticket


class Store(Protocol):
    """A place for copies of one study's checkpoints.

    Attributes:
        every_s: The least time from one copy of a worker's to the next.
        patience_s: The time for which a reader tries again; infinite if the store does so itself.
    """

    every_s: float
    patience_s: float

    def put(self, file: BinaryIO, origin: Origin, *, size: int, sha256: str) -> None:
        """Store a checkpoint in place of the trial's earlier ones, or raise `Refused`."""

    def copies(self, number: int, *, below: int, above: int) -> Sequence[Copy]:
        """The copies of a trial by attempts between two, the latest first."""

    def discard(self, number: int) -> None:
        """Delete the copies of a trial."""

    def sweep(self, ended: Container[int], *, keep: tuple[int, int] | None) -> None:
        """Delete the copies of ended trials, except that of one trial's attempt."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The attempt whose checkpoints are copied.

    Attributes:
        path: Its local file.
        steps: The trial's last step, whose checkpoint is copied for the best trial alone.
        on_copied: Called with the step from which another host can go on.
    """

    ticket: Ticket
    number: int
    path: Path
    steps: int
    on_copied: Callable[[int], None]

    def origin(self, step: int) -> Origin:
        """The source of a copy of its file."""
        return Origin(
            run_uid=self.ticket.run_uid,
            ticket=self.ticket.ticket,
            number=self.number,
            attempt=self.ticket.attempt,
            step=step,
        )


class Gone(Exception):
    """A local file that is there no more, because its trial has ended."""


class Unwritable(Exception):
    """A local file that cannot be written, with the reason."""


class Found(NamedTuple):
    """The outcome of a search for a checkpoint to go on from.

    Attributes:
        is_whole: Whether there is a whole local file now.
        brought: The copy that was brought in; None for none.
        damaged: Number of copies that were not whole.
    """

    is_whole: bool
    brought: Copy | None = None
    damaged: int = 0


def send(store: Store, owner: Owner, step: int) -> None:
    """Store a copy of the local file, which holds this step or a later one.

    A newer one may replace it meanwhile.

    Raises:
        Gone: It is there no more.
        Refused: The store does not take it.
        LeaseLost: The trial has another owner by now.
    """
    try:
        opened = owner.path.open("rb")
    except FileNotFoundError as error:
        raise Gone from error
    with opened as file:
        size = file.seek(0, 2)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        store.put(file, owner.origin(step), size=size, sha256=sha256)


def bring(store: Store, owner: Owner) -> Found:
    """Bring in the newest whole copy of earlier attempts, unless a local file is as new.

    Raises:
        Unwritable: The local file cannot be written.
    """
    # A file whose end is missing has no directory; it may have been cut off by a power failure.
    local = (file for file in checkpoint_files.earlier(owner.path) if zipfile.is_zipfile(file))
    newest = next(local, None)
    above = -1 if newest is None else checkpoint_files.attempt_of(newest)
    damaged = 0
    for copy in store.copies(owner.number, below=owner.ticket.attempt, above=above):
        folder = owner.path.parent
        if _fetch(copy, checkpoint_files.file_of(folder, owner.number, copy.attempt)):
            return Found(True, copy, damaged)
        damaged += 1
    return Found(newest is not None, None, damaged)


def _fetch(copy: Copy, path: Path) -> bool:
    """Write a copy to a local file; return False, and write none, if it is not whole."""
    digest = hashlib.sha256()
    try:
        with _local(path.parent):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.renamed(path) as temporary:
            for part in copy.read():
                digest.update(part)
                with _local(path.parent), temporary.open("ab") as file:
                    file.write(part)
            if not digest.hexdigest().startswith(copy.sha256):
                raise _Damaged
    except _Damaged:
        return False
    return True


class _Damaged(Exception):
    """A copy with another checksum."""


@contextmanager
def _local(folder: Path) -> Iterator[None]:
    """Tell errors of the local disk from those of the store that is read."""
    try:
        yield
    except OSError as error:
        raise Unwritable(f"'{folder}' cannot be written: {error.strerror or error}") from error
