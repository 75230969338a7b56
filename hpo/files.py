"""Files written whole or not at all: beside the old one, then renamed into its place."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError

_NAME = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")


@contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """A path of this process beside a file; it replaces the file, or is removed where that fails.

    Raises:
        OSError: It cannot be renamed; all else is the block's.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def target_name(temporary: str) -> str | None:
    """The name of the file that one of `renamed` was to become; None where it is none of these."""
    found = _NAME.fullmatch(temporary)
    return found and found["name"]


def write(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        with renamed(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(
            f"'{path}' cannot be written: {error.strerror or error}; make room, or give the right "
            "to write, and the same command goes on"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, as `write` does."""
    write(path, json.dumps(content, indent=2).encode())
