"""The objective that something stored was made with: code of a file runs only where it is named.

Border: which objective, and whether it changed since; what is done with it is the caller's.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError, ObjectiveError
from objectives import Objective, load, names


def objective_of(
    config: Mapping[str, Any], given: str | None, *, is_file: bool, what: str
) -> tuple[Objective, bool]:
    """The objective of stored settings, and whether its file has changed since.

    Args:
        given: Where its user says that it is; None for where the settings say.
        is_file: Whether the settings came with a file, and not from a database.
        what: What wants it, for the message: 'the saved step'.

    Raises:
        ConfigurationError: It is code that does not come with the project, and nobody named it.
        ObjectiveError: There is none, or it cannot be imported.
    """
    spec = given or config["objective"]
    if is_file and given is None and spec not in names():
        # A file may come from anywhere, and an objective is code.
        raise ConfigurationError(
            f"{what} wants to run the code of '{spec}'; if that is what you expect, say "
            f"so with --objective '{spec}', or where it is on this machine"
        )
    found = load_objective(spec)
    return found, source_hash(found) != config["source"]


def load_objective(spec: str) -> Objective:
    """The objective of this name, module or file.

    Raises:
        ObjectiveError: There is none, or it cannot be imported.
    """
    try:
        return load(spec)
    except LookupError as error:
        raise ObjectiveError(f"{error.args[0]} (--objective)") from error
    except Exception as error:
        raise ObjectiveError(
            f"objective '{spec}' cannot be imported: {type(error).__name__}: {error}"
        ) from error


def source_hash(objective: Objective) -> str:
    """A short hash of the file that an objective is written in."""
    path = inspect.getsourcefile(type(objective))
    return hashlib.blake2b(Path(path or "").read_bytes(), digest_size=8).hexdigest()
