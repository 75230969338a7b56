"""Files written whole or not at all: beside the old one, then renamed into its place."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError


def write(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise ConfigurationError(
            f"'{path}' cannot be written: {error.strerror or error}; make room, or give the right "
            "to write, and the same command goes on"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, as `write` does."""
    write(path, json.dumps(content, indent=2).encode())
