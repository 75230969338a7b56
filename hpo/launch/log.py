"""The log of a process, as its launcher opens it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from hpo.errors import ConfigurationError


def opened(log: Path) -> BinaryIO:
    """Open a log to append to, and make its folder.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise ConfigurationError(
            f"the log '{log}' cannot be written: {error.strerror}; mend that, or name another "
            "folder (HPO_HOME; for a training --out)"
        ) from error
