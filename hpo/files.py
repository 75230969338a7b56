"""Write files whole or not at all: to a temporary file in the same folder, then renamed."""

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
    """A temporary path that replaces a file after the block, or is removed on any error.

    Raises:
        OSError: It cannot be renamed; errors of the block pass through.
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
    """The target's name of a temporary path of `renamed`; None for any other name."""
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
