"""The folder of an objective on this process's path, and the modules imported from there.

It stands behind Python's own modules and before installed packages. Processes that
`multiprocessing` starts get the path from this one, so they can import what the objective could.

Border: knows folders and modules; `_loading` knows objectives.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

# It is imported here, before a folder with a `models` of its own may be on the path.
import models  # noqa: F401
from objectives._sources import OURS

# The folders on the path for an objective, the latest first.
_opened: list[str] = []
# The modules that were imported from them.
_imported: dict[str, ModuleType] = {}


class NoObjective(LookupError):
    """What was named is no objective that can be loaded; the message says why."""


class Imports:
    """The import of an objective from a folder: `with Imports(folder): ...`.

    Modules that earlier objectives imported from their folders are forgotten first: a `helper` of
    another folder is another module, and a changed file is read again.

    Attributes:
        modules: The modules that were imported from the folder, by their names, after the import.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: dict[str, ModuleType] = {}

    def __enter__(self) -> Imports:
        refuse_hiding(self.folder)
        for name, module in _imported.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        _imported.clear()
        put_on_path(self.folder)
        self._before = dict(sys.modules)
        # A bytecode file of the same second and size would hide an edit of a module.
        self._writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        return self

    def __exit__(self, *error: object) -> None:
        sys.dont_write_bytecode = self._writes
        for name, module in list(sys.modules.items()):
            if self._before.get(name) is not module and _is_from(self.folder, module):
                self.modules[name] = module
        _imported.update(self.modules)


def _is_from(folder: Path, module: ModuleType) -> bool:
    """True if a module's file is in a folder, and not in an environment of Python's below it."""
    file = Path(getattr(module, "__file__", None) or "")
    if not file.is_relative_to(folder):
        return False
    return not any(part.endswith("-packages") for part in file.relative_to(folder).parts)


def put_on_path(folder: Path) -> None:
    """Put a folder on the path, before those of other objectives and before installed packages."""
    text = str(folder)
    if text in _opened:
        sys.path.remove(text)
        _opened.remove(text)
    elif text in sys.path:
        return
    installed = (n for n, entry in enumerate(sys.path) if entry.endswith("-packages"))
    first = next((n for n, entry in enumerate(sys.path) if entry in _opened), None)
    sys.path.insert(next(installed, len(sys.path)) if first is None else first, text)
    _opened.insert(0, text)


def refuse_hiding(folder: Path) -> None:
    """Refuse a folder with a module that would hide one of this project or of what it needs.

    Raises:
        NoObjective: It has one; the message names it.
    """
    for name, path in _modules_in(folder):
        if name in OURS:
            own = getattr(sys.modules.get(name), "__path__", [""])[0]
            if Path(own) != path:
                raise NoObjective(
                    f"'{path}' lies in the objective's folder and would hide this project's "
                    f"package '{name}'; rename it"
                )
        elif name not in sys.stdlib_module_names and _is_installed(name) and _is_needed(name):
            raise NoObjective(
                f"'{path}' lies in the objective's folder and would hide the library '{name}', "
                "which this project needs; rename it"
            )


def is_module(name: str, folder: Path) -> bool:
    """True if a folder holds a module or package of this name."""
    return any(name == one for one, _ in _modules_in(folder))


def _modules_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """The top-level modules and packages in a folder; a folder without Python files is neither."""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.suffix == ".py":
                yield path.stem, path
            elif path.name.isidentifier() and path.is_dir() and next(path.glob("*.py"), None):
                yield path.name, path


def _is_installed(name: str) -> bool:
    path = [entry for entry in sys.path if entry.endswith("-packages")]
    return PathFinder.find_spec(name, path) is not None


def _is_needed(name: str) -> bool:
    """True if this project needs the library that a top-level module belongs to."""
    needed, left = {"hpo"}, ["hpo", "torch", "optuna"]
    while left:
        with suppress(metadata.PackageNotFoundError):
            required = metadata.requires(left.pop()) or []
            names = {_plain(one) for one in required if "extra ==" not in one} - needed
            needed |= names
            left += names
    owners = metadata.packages_distributions().get(name, [])
    return not needed.isdisjoint(map(_plain, owners))


def _plain(requirement: str) -> str:
    """The name of a distribution in its common form: 'scikit-learn' of `Scikit_Learn>=1`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()
