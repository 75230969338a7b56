"""Write files whole or not at all: to a temporary file in the same folder, then renamed.

And the two formats that several commands write: JSON without NaN, and CSV.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError

# Processes of several containers may have the same pid, so a random token tells them apart.
_TOKEN_BYTES = 4
_NAME = re.compile(r"\.(?P<name>.+)\.\d+(-[0-9a-f]+)?\.tmp")


@contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """A temporary path that replaces a file after the block, or is removed on any error.

    Raises:
        OSError: It cannot be renamed; errors of the block pass through.
    """
    unique = f"{os.getpid()}-{secrets.token_hex(_TOKEN_BYTES)}"
    temporary = path.with_name(f".{path.name}.{unique}.tmp")
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


def write(path: Path, content: bytes | str, *, flag: str | None = None) -> None:
    """Write a file.

    A path that a user named may be a pipe, a device or a link, whose target is then written into. A
    link in a folder of our own is replaced, since the folder may come from elsewhere.

    Args:
        content: A text is written in UTF-8.
        flag: The flag by which the user named the path.

    Raises:
        ConfigurationError: It cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    path = path if flag is None else path.resolve()
    try:
        if flag is not None and path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        with renamed(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        reason = error.strerror or error
        cure = "; make room, or give the right to write, and the same command goes on"
        raise ConfigurationError(
            f"'{path}' cannot be written: {reason}{cure if flag is None else f' ({flag})'}"
        ) from error


def refuse_unwritable(path: Path, *, flag: str) -> None:
    """Raise `ConfigurationError` where a file cannot be written, before any work for it is done."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = (
            "it is a folder"
            if path.is_dir()
            else f"there is no folder '{folder}'"
            if not folder.is_dir()
            else f"nobody may write in '{folder}'"
        )
        raise ConfigurationError(f"'{path}' cannot be written: {what} ({flag})")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, as `write` does."""
    write(path, json.dumps(content, indent=2))


def finite(value: Any, *, names: bool = False) -> Any:
    """Plain data for JSON, which has no NaN and no infinity: null in their place, or their names.

    Args:
        value: Numbers, texts, lists, tuples and dicts of these, to any depth.
        names: Give 'nan', 'inf' and '-inf', as the records keep them.
    """
    if isinstance(value, dict):
        return {key: finite(item, names=names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item, names=names) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if names else None
    return value


def csv_text(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table as CSV (RFC 4180), the head first; a cell of None is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
