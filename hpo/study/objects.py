"""Copies of checkpoints as objects below a URL of fsspec: an object store, or a mounted folder.

An object's name holds trial, attempt, step and checksum, so that a late writer replaces no other's,
and an object that was cut off is told from a whole one. It is what `torch.load` reads. Border:
bytes in, bytes out; `hpo.worker.depot` decides when, and compares checksums.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from hpo.database.checkpoints import Copy, Origin
from hpo.errors import ConfigurationError
from hpo.study.place import FLAG

_NAME = re.compile(
    r"trial_(?P<number>\d+)-(?P<attempt>\d+)-(?P<step>\d+)-(?P<sha256>[0-9a-f]{32})\.pt"
)
# Half of a SHA-256 tells whole files from others as well.
_DIGITS = 32
_CHUNK = 8 << 20
# Where these are, a folder must exist before its files. An object store would create a bucket.
_WITH_FOLDERS = {"file", "local", "sftp", "ssh", "smb", "ftp", "hdfs", "webhdfs"}


class _Object(NamedTuple):
    """An object of ours, and what its name says."""

    path: str
    number: int
    attempt: int
    step: int
    sha256: str


class Objects:
    """The copies of one study's checkpoints below a URL.

    Attributes:
        every_s: The least time from one copy of a worker's to the next.
        patience_s: The time for which a reader tries again while the store is away.
    """

    every_s = 30.0
    patience_s = 300.0

    def __init__(self, url: str, study_uid: str) -> None:
        self._url = f"{url}/{study_uid}"
        self._fs, root = _opened(url)
        self._folder = f"{root.rstrip('/')}/{study_uid}"

    def __str__(self) -> str:
        return self._url

    def put(self, file: BinaryIO, origin: Origin, *, size: int, sha256: str) -> None:
        """Store a checkpoint, and then delete the trial's earlier ones."""
        name = f"trial_{origin.number:05d}-{origin.attempt}-{origin.step}-{sha256[:_DIGITS]}.pt"
        path = f"{self._folder}/{name}"
        self._make(self._folder)
        try:
            with self._fs.open(path, "wb") as target:
                shutil.copyfileobj(file, target, _CHUNK)
        except BaseException:
            # Its checksum would tell it from a whole one, too.
            with suppress(Exception):
                self._fs.rm_file(path)
            raise
        mine = (origin.attempt, origin.step)
        self._remove(
            lambda one: (
                one.number == origin.number
                and (one.attempt, one.step) <= mine
                and not one.path.endswith(name)
            )
        )

    def _make(self, folder: str) -> None:
        protocol = self._fs.protocol
        if _WITH_FOLDERS & {*((protocol,) if isinstance(protocol, str) else protocol)}:
            self._fs.makedirs(folder, exist_ok=True)

    def copies(self, number: int, *, below: int, above: int) -> Sequence[Copy]:
        """The copies of a trial by attempts between two, the latest first."""
        found = [o for o in self._list() if o.number == number and above < o.attempt < below]
        found.sort(key=lambda one: (one.attempt, one.step), reverse=True)
        return [
            Copy(
                attempt=one.attempt,
                step=one.step,
                sha256=one.sha256,
                read=partial(self._read, one.path),
            )
            for one in found
        ]

    def _read(self, path: str) -> Iterator[bytes]:
        with self._fs.open(path, "rb") as file:
            yield from iter(lambda: file.read(_CHUNK), b"")

    def discard(self, number: int) -> None:
        """Delete the copies of a trial."""
        self._remove(lambda one: one.number == number)

    def sweep(self, ended: Container[int], *, keep: tuple[int, int] | None) -> None:
        """Delete the copies of ended trials.

        Args:
            keep: The trial and the attempt whose copy stays.
        """
        self._remove(lambda one: one.number in ended and (one.number, one.attempt) != keep)

    def _remove(self, which: Callable[[_Object], bool]) -> None:
        for one in filter(which, self._list()):
            # Another worker may sweep at the same time.
            with suppress(FileNotFoundError):
                self._fs.rm_file(one.path)

    def _list(self) -> list[_Object]:
        # Some file systems remember a listing; others write here, too.
        self._fs.invalidate_cache()
        try:
            paths = self._fs.ls(self._folder, detail=False)
        except FileNotFoundError:
            return []
        named = ((path, _NAME.fullmatch(path.rpartition("/")[2])) for path in paths)
        return [
            _Object(path, int(n["number"]), int(n["attempt"]), int(n["step"]), n["sha256"])
            for path, n in named
            if n is not None
        ]

    def copy_to(self, study_uid: str) -> None:
        """Copy all objects for another study, which may go on from them."""
        for one in self._list():
            folder, _, name = one.path.rpartition("/")
            target = f"{folder.rpartition('/')[0]}/{study_uid}"
            self._make(target)
            self._fs.cp_file(one.path, f"{target}/{name}")

    def clear(self) -> None:
        """Delete all objects of the study."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            self._fs.rm(self._folder, recursive=True)


def _opened(url: str) -> tuple[Any, str]:
    """The file system that a URL names, and the path in it.

    Raises:
        ConfigurationError: There is no such file system, or its package is not installed.
    """
    import fsspec
    from fsspec.registry import known_implementations

    scheme = url.partition("://")[0].lower()
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = known_implementations.get(scheme, {}).get("class", "").partition(".")[0]
        cure = f"write 'pip install {package}' in" if package != "fsspec" else f"{error}; mend"
        raise ConfigurationError(
            f"'{url}' needs a package that is not installed here: {cure} the environment of "
            f"every worker ({FLAG})"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"'{url}' cannot be used: {error} ({FLAG})") from error
    return found


def require(url: str) -> None:
    """Raise `ConfigurationError` where a URL cannot be used on this host."""
    _opened(url)
