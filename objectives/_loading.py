"""Find an objective by its name, module or file, and list the files that it is made of."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from objectives._bound import unbound
from objectives._contract import Objective
from objectives._folder import Imports, NoObjective, module_in, put_on_path
from objectives._sources import OURS, module_file, sources

# `run` takes this objective if none is named.
DEFAULT = "ris_covariance"


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """An objective of a user, and what it was loaded from.

    Attributes:
        hashes: Hash of each of its files when it was loaded, by the file's name in its folder.
        modules: The modules that its import brought along.
    """

    objective: Objective
    folder: Path
    files: Mapping[str, Path]
    hashes: Mapping[str, str]
    modules: Mapping[str, ModuleType]

    @property
    def is_current(self) -> bool:
        """True if its modules are still those of this process, and its files are unchanged."""
        return all(sys.modules.get(name) is one for name, one in self.modules.items()) and all(
            file.is_file() and file_hash(file) == self.hashes[name]
            for name, file in self.files.items()
        )


# What was loaded, by its name and its folder. A command loads its objective several times, and a
# second import could fail, for example where the first has registered something.
_loaded: dict[tuple[str, Path], _Loaded] = {}
# The threads that import one.
_importing_now: list[int] = []


def names() -> list[str]:
    """Names of the objectives that come with the project."""
    found = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in found if not path.stem.startswith("_"))


def load(spec: str) -> Objective:
    """Load the objective called `NAME`, at `module:attr`, or in a file `path.py`.

    The file's folder, for a module the working folder, is on the path from then on.

    Raises:
        NoObjective: Nothing has that name, or it is not an objective, or what lies in its folder
            would hide a module of this project.
    """
    if spec.endswith(".py"):
        path = Path(spec)
        if not path.is_file():
            raise NoObjective(f"objective file '{spec}' does not exist")
        return _load(spec, path.resolve().parent)
    module, colon, attribute = spec.partition(":")
    if colon and module.partition(".")[0] not in OURS:
        return _load(spec, working_folder() or Path(__file__).parents[1])
    if colon:
        return _objective_in(importlib.import_module(module), attribute, spec)
    if spec in names():
        return _objective_in(importlib.import_module(f"objectives.{spec}"), "objective", spec)
    raise NoObjective(
        f"no objective named '{spec}'; use one of {', '.join(names())}, "
        "a file 'path.py' or 'module:attr'"
    )


def files_of(objective: Objective) -> Mapping[str, Path]:
    """The files that an objective is made of, its own first, by their names in its folder.

    One that comes with the project, or that was not loaded by `load`, is the file of its class.
    """
    for one in _loaded.values():
        if one.objective is unbound(objective):
            return one.files
    path = Path(inspect.getsourcefile(type(objective)) or "")
    return {path.name: path}


def hidden_beside(objective: Objective) -> list[Path]:
    """Files beside an objective that are hidden by a package of this project.

    An import of such a name finds the package.
    """
    origin = unbound(objective)
    folder = next((one.folder for one in _loaded.values() if one.objective is origin), None)
    if folder is None or folder == Path(__file__).parents[1]:
        return []
    return [path for name in OURS if (path := module_in(folder, name)) is not None]


def file_hash(path: Path) -> str:
    """A 64-bit hash of a file, in hexadecimal."""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def add_working_folder(module: str) -> None:
    """Put the working folder on the path if it holds the module, for a `module:attr`."""
    folder = folder_of(module)
    if folder is not None:
        put_on_path(folder)


def add_folder(spec: str) -> None:
    """Put the folder of an objective on the path, as `load` does, and import nothing."""
    if spec.endswith(".py"):
        put_on_path(Path(spec).resolve().parent)
    elif ":" in spec:
        add_working_folder(spec.partition(":")[0])


def folder_of(module: str) -> Path | None:
    """The working folder if it holds the module; None if that is found elsewhere, or nowhere."""
    folder = working_folder()
    is_beside = folder is not None and module_in(folder, module.partition(".")[0])
    return folder if is_beside else None


def working_folder() -> Path | None:
    """The working folder; None if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _load(spec: str, folder: Path) -> Objective:
    known = _loaded.get((spec, folder))
    if known is not None and known.is_current:
        put_on_path(known.folder)
        return known.objective
    with _importing(spec):
        if spec.endswith(".py"):
            loaded = _from_file(spec, Path(spec).resolve())
        else:
            loaded = _from_module(spec, folder)
    _loaded[spec, folder] = loaded
    return loaded.objective


def is_importing() -> bool:
    """Return whether an objective's file is being imported by this thread."""
    return threading.get_ident() in _importing_now


@contextmanager
def _importing(spec: str) -> Iterator[None]:
    """Import a file as a program without arguments, and keep what decides about our connections.

    A script may parse the arguments of its command line, which are not the service's. What it sets
    for libpq, as from a file of settings, would have the service connect elsewhere.
    """
    arguments, variables = sys.argv, _libpq()
    sys.argv = [spec]
    _importing_now.append(threading.get_ident())
    try:
        yield
    finally:
        _importing_now.remove(threading.get_ident())
        sys.argv = arguments
        for name in _libpq():
            del os.environ[name]
        os.environ.update(variables)


def _libpq() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PG")}


def _from_file(spec: str, path: Path) -> _Loaded:
    with Imports(path.parent) as imports:
        module = _execute(path)
    found = _objective_in(module, "objective", spec)
    return _noted(found, path, path.parent, imports, within=None)


def _from_module(spec: str, folder: Path) -> _Loaded:
    name, _, attribute = spec.partition(":")
    top = name.partition(".")[0]
    if module_in(folder, top):
        with Imports(folder) as imports:
            module = importlib.import_module(name)
    else:
        imports, module = Imports(folder), importlib.import_module(name)
    found = _objective_in(module, attribute, spec)
    file = Path(module.__file__ or inspect.getsourcefile(type(found)) or "")
    # The folder in which Python found it: that of the top-level package.
    root = file.parents[name.count(".") + (file.name == "__init__.py")]
    is_own = root == folder and module_file(top, folder) is not None
    return _noted(found, file, root, imports, within=None if is_own else top)


def _objective_in(module: ModuleType, attribute: str, spec: str) -> Objective:
    found = getattr(module, attribute, None)
    if not isinstance(found, Objective):
        raise NoObjective(
            f"'{spec}' holds no Objective called '{attribute}'; "
            f"end the file with '{attribute} = MyObjective()'"
        )
    return found


def _noted(
    found: Objective, file: Path, root: Path, imports: Imports, *, within: str | None
) -> _Loaded:
    """An objective with its files: those that its code names, and those that were imported."""
    paths = sources(file, root, within)
    for module in imports.modules.values():
        path = Path(module.__file__ or "")
        if path not in paths and path.suffix == ".py" and path.is_relative_to(root):
            paths.append(path)
    files = {path.relative_to(root).as_posix(): path for path in [file, *sorted(paths[1:])]}
    return _Loaded(
        objective=found,
        folder=root,
        files=files,
        hashes={name: file_hash(path) for name, path in files.items()},
        modules=imports.modules,
    )


def _execute(path: Path) -> ModuleType:
    """Import a file under the name by which a process of its own finds it, too."""
    name = _name_of(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # An import would do this, too: inspect and dataclasses search here for a class's module.
    sys.modules[name] = module
    try:
        # No bytecode file is used: one of the same second and size would hide an edit. Nor are the
        # imports from __future__ of this module: annotations would be texts.
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except ImportError as error:
        del sys.modules[name]
        if "no known parent package" not in str(error):
            raise
        raise NoObjective(
            f"objective file '{path}' is part of a package: {error}; name it as a module, "
            f"'{path.parent.name}.{path.stem}:objective', in the folder above its package"
        ) from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _name_of(path: Path) -> str:
    """The name under which Python finds a file on the path; another one if it finds none there."""
    is_taken = path.stem in sys.modules or path.stem in sys.stdlib_module_names
    spec = None if is_taken or "." in path.stem else PathFinder.find_spec(path.stem)
    is_found = spec is not None and spec.origin is not None and Path(spec.origin) == path
    return path.stem if is_found else f"objective_{path.stem}"
