"""Find an objective by its name, module or file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from objectives._contract import Objective

# `run` takes this objective if none is named.
DEFAULT = "ris_covariance"


def names() -> list[str]:
    """Names of the objectives that come with the project."""
    found = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in found if not path.stem.startswith("_"))


def load(spec: str) -> Objective:
    """Load the objective called `NAME`, at `module:attr`, or in a file `path.py`.

    Raises:
        LookupError: Nothing has that name, or it is not an objective.
    """
    if spec.endswith(".py"):
        module, attribute = _load_file(Path(spec)), "objective"
    elif ":" in spec:
        path, _, attribute = spec.partition(":")
        module = importlib.import_module(path)
    elif spec in names():
        module, attribute = importlib.import_module(f"objectives.{spec}"), "objective"
    else:
        raise LookupError(
            f"no objective named '{spec}'; use one of {', '.join(names())}, "
            "a file 'path.py' or 'module:attr'"
        )
    found = getattr(module, attribute, None)
    if not isinstance(found, Objective):
        raise LookupError(
            f"'{spec}' holds no Objective called '{attribute}'; "
            f"end the file with '{attribute} = MyObjective()'"
        )
    return found


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LookupError(f"objective file '{path}' does not exist")
    spec = importlib.util.spec_from_file_location(f"objective_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # An import would do this, too: inspect and dataclasses search here for a class's module.
    sys.modules[spec.name] = module
    # No bytecode file is used: one of the same second and size would hide an edit.
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module
