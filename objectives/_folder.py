"""The folder of an objective on this process's path, and the modules imported from there.

It stands behind Python's own modules and before installed packages. Processes that
`multiprocessing` starts get the path from this one, so they can import what the objective could.

Border: knows folders and modules; `_loading` knows objectives.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

# It is imported here, before a folder with a `models` of its own may be on the path.
import models
from objectives._sources import OURS

# Where the top-level packages of this project are.
_ROOT = str(Path(models.__file__).parents[1])
# The folders on the path for an objective, the latest first.
_opened: list[str] = []
# The modules that were imported from them.
_imported: dict[str, ModuleType] = {}


class NoObjective(LookupError):
    """The name leads to no objective that can be loaded; the message says why."""


class Imports:
    """The import of an objective from a folder: `with Imports(folder): ...`.

    Python's own modules and this project's packages come before those of the folder. An import that
    fails for that reason raises `NoObjective`, which names the file to rename.

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

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        sys.dont_write_bytecode = self._writes
        for name, module in list(sys.modules.items()):
            is_ours = name.partition(".")[0] in OURS
            is_new = self._before.get(name) is not module and not is_ours
            if is_new and _is_from(self.folder, module):
                self.modules[name] = module
        _imported.update(self.modules)
        if isinstance(error, ImportError) and (hidden := self._hidden(error)):
            raise NoObjective(
                f"'{hidden}' in the objective's folder is hidden by another module of that name: "
                f"{error}; rename it"
            ) from error

    def _hidden(self, error: ImportError) -> Path | None:
        """The file or package of the folder that was wanted, where another one was found."""
        top = (error.name or "").partition(".")[0]
        if top not in sys.modules or _is_from(self.folder, sys.modules[top]):
            return None
        return module_in(self.folder, top)


def _is_from(folder: Path, module: ModuleType) -> bool:
    """True if a module's file is in a folder, and not in an environment of Python's below it."""
    # Some libraries put objects here that raise when they are asked for an attribute.
    file = getattr(module, "__dict__", {}).get("__file__")
    if not isinstance(file, str) or not Path(file).is_relative_to(folder):
        return False
    return not any(part.endswith("-packages") for part in Path(file).relative_to(folder).parts)


def put_on_path(folder: Path) -> None:
    """Put a folder on the path, before those of other objectives and before installed packages."""
    text = str(folder)
    if text in _opened:
        _opened.remove(text)
        # A trial may have changed the path.
        sys.path[:] = [entry for entry in sys.path if entry != text]
    elif text in sys.path:
        return
    # In a clone that is not installed, `PYTHONPATH` has it first, with `tests` and all else there.
    is_clone = _ROOT in sys.path and text != _ROOT and not _ROOT.endswith("-packages")
    if is_clone:
        sys.path[:] = [entry for entry in sys.path if entry != _ROOT]
    installed = (n for n, entry in enumerate(sys.path) if entry.endswith("-packages"))
    first = next((n for n, entry in enumerate(sys.path) if entry in _opened), None)
    place = next(installed, len(sys.path)) if first is None else first
    # A child imports anew, and where this project is not installed as a copy its finder comes last.
    has_ours = any((folder / one).is_dir() or (folder / f"{one}.py").exists() for one in OURS)
    behind = [_ROOT] if is_clone else []
    sys.path[place:place] = [_ROOT, text] if has_ours else [text, *behind]
    _opened.insert(0, text)


def refuse_hiding(folder: Path) -> None:
    """Refuse a folder with a module that would hide a library that this project needs.

    Raises:
        NoObjective: It has one; the message names it.
    """
    for name in _names_in(folder):
        is_library = name not in OURS and name not in sys.stdlib_module_names
        path = module_in(folder, name) if is_library and _is_installed(name) else None
        if path is not None and _is_needed(name):
            raise NoObjective(
                f"'{path}' lies in the objective's folder and would hide the library '{name}', "
                "which this project needs; rename it"
            )


def module_in(folder: Path, name: str) -> Path | None:
    """The file or package of this name in a folder; a folder without Python files is neither."""
    file, package = folder / f"{name}.py", folder / name
    if package.is_dir() and next(package.glob("*.py"), None) is not None:
        return package
    return file if file.is_file() else None


def _names_in(folder: Path) -> set[str]:
    """The names of what may be modules and packages in a folder."""
    with suppress(OSError):
        return {path.stem for path in folder.iterdir() if path.suffix in ("", ".py")}
    return set()


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
