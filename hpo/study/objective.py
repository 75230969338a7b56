"""Import the objective of a stored configuration; run foreign code only if the user named it.

Border: finds and imports the objective and detects a change of its file; callers use it.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError, ObjectiveError
from hpo.task.raised import described
from objectives import Objective, load, names


def objective_of(
    config: Mapping[str, Any], given: str | None, *, is_file: bool, what: str
) -> tuple[Objective, bool]:
    """Import the objective of a stored configuration.

    Args:
        given: The user's name, module or file of the objective; None for the stored one.
        is_file: True if the configuration came with a file and not from a database.
        what: The thing that needs the objective, for the message: 'the saved step'.

    Returns:
        The objective, and whether its file has changed since the configuration was stored.

    Raises:
        ConfigurationError: It does not come with the project, and the user did not name it.
        ObjectiveError: There is none, or it cannot be imported.
    """
    spec = given or config["objective"]
    if is_file and given is None and spec not in names():
        # A file may come from an untrusted source, and importing an objective runs its code.
        raise ConfigurationError(
            f"{what} wants to run the code of '{spec}'; if that is what you expect, say "
            f"so with --objective '{spec}', or where it is on this machine"
        )
    found = load_objective(spec)
    return found, source_hash(found) != config["source"]


def load_objective(spec: str) -> Objective:
    """Import the objective of this name, module or file.

    Raises:
        ObjectiveError: There is none, or it cannot be imported.
    """
    try:
        return load(spec)
    except LookupError as error:
        raise ObjectiveError(f"{error.args[0]} (--objective)") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A script without a guard of '__main__' parses its arguments, and so ends the process.
        raise ObjectiveError(
            f"objective '{spec}' cannot be imported: {described(error)}"
        ) from error


def source_hash(objective: Objective) -> str:
    """A 64-bit hash of the file that defines an objective, in hexadecimal."""
    path = inspect.getsourcefile(type(objective))
    return hashlib.blake2b(Path(path or "").read_bytes(), digest_size=8).hexdigest()
