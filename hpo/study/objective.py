"""Import an objective, for a stored configuration only where the user named it; name its changes.

Border: finds and imports the objective and compares its files; callers say what follows.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from hpo import trust
from hpo.errors import ObjectiveError
from hpo.study.described import Described, description
from hpo.task.raised import described
from objectives import NoObjective, Objective, file_hash, files_of, load, names


def objective_of(
    config: Mapping[str, Any], given: str | None, *, what: str
) -> tuple[Objective, Sequence[str]]:
    """Import the objective of a stored configuration.

    Args:
        given: The user's name, module or file of the objective; None for the stored one.
        what: The thing that needs the objective, for the message: 'the saved step'.

    Returns:
        The objective, and the names of its files that have changed since the configuration was
        stored; '' is its own.

    Raises:
        ConfigurationError: It does not come with the project, and nobody named it on this host.
        ObjectiveError: There is none, or it cannot be imported.
    """
    found = named_objective(given, config["objective"], what=what)
    return found, changed_files(found, config["source"])


def named_objective(given: str | None, stored: str, *, what: str) -> Objective:
    """Import the objective that the user names, else the one that is stored.

    Raises:
        ConfigurationError: It does not come with the project, and nobody named it on this host.
        ObjectiveError: There is none, or it cannot be imported.
    """
    if given is not None:
        found = load_objective(given)
        if given not in names():
            trust.name("objective", given)
        return found
    if stored not in names():
        trust.refuse_unnamed("objective", stored, what=what)
    return load_objective(stored)


def load_objective(spec: str) -> Objective:
    """Import the objective of this name, module or file.

    Raises:
        ObjectiveError: There is none, or it cannot be imported.
    """
    try:
        return load(spec)
    except NoObjective as error:
        raise ObjectiveError(f"{error} (--objective)") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A script without a guard of '__main__' parses its arguments, and so ends the process.
        raise ObjectiveError(
            f"objective '{spec}' cannot be imported: {described(error)}"
        ) from error


def is_missing(spec: str) -> bool:
    """Return whether there is no such file or name, which no import need find out."""
    if spec.endswith(".py"):
        return not Path(spec).is_file()
    return ":" not in spec and spec not in names()


def declarations(objective: Objective) -> dict[str, Any]:
    """An objective's declarations and hashes as plain data, for a process without its code."""
    return description(objective, source_hash(objective), _class_hash(objective))


def faulty(spec: str, faults: Sequence[str]) -> str:
    """The message on an objective with faults, one in its line or several below it."""
    first, *others = faults
    return f"objective '{spec}':" + ("\n- ".join(["", first, *others]) if others else f" {first}")


def source_hash(objective: Objective) -> str:
    """Hashes of the files that an objective is made of: `HASH helper.py=HASH nets/net.py=HASH`.

    The first is the objective's own; those of its folder that it imports follow.
    """
    if isinstance(objective, Described):
        return objective.source
    first, *others = files_of(objective).items()
    return " ".join([file_hash(first[1]), *(f"{quote(n)}={file_hash(p)}" for n, p in others)])


def changed_files(objective: Objective, source: str) -> list[str]:
    """Names of the files of an objective that have changed since it had these hashes.

    '' stands for the objective's own.
    """
    changed = differing(str(source), source_hash(objective))
    # Earlier versions stored the hash of the class's file, which may be another one.
    if "" in changed and _class_hash(objective) == str(source).partition(" ")[0]:
        changed.remove("")
    return changed


def differing(before: str, now: str) -> list[str]:
    """Names of the files with another hash; '' for the objective's own."""
    old, new = _hashes(before), _hashes(now)
    # Earlier versions stored the hash of the objective's own file alone.
    compared = [""] if len(old) == 1 or len(new) == 1 else dict.fromkeys((*old, *new))
    return [name for name in compared if old.get(name) != new.get(name)]


def in_words(changed: Sequence[str]) -> str:
    """The beginning of a sentence on changed files: "the objective's 'helper.py' has changed"."""
    listed = ", ".join(f"'{name}'" if name else "file" for name in changed)
    return f"the objective's {listed} {'has' if len(changed) == 1 else 'have'} changed"


def _hashes(source: str) -> dict[str, str]:
    own, *others = source.split(" ")
    pairs = (one.rpartition("=") for one in others)
    return {"": own, **{unquote(name): value for name, _, value in pairs}}


def _class_hash(objective: Objective) -> str | None:
    if isinstance(objective, Described):
        return objective.class_hash
    path = Path(inspect.getsourcefile(type(objective)) or "")
    return file_hash(path) if path.is_file() else None
