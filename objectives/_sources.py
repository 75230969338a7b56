"""The files that an objective is made of: its own, and those of its folder that they import.

Border: reads files and executes none, so that the list is the same in every process, and an import
within a function counts. An import by a computed name is seen only after it (`_folder.Loaded`).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# The top-level packages of this project. An objective's file cannot replace them.
OURS = ("hpo", "models", "objectives")


def sources(file: Path, root: Path, within: str | None = None) -> list[Path]:
    """A file and all files below a root that it imports, directly or by another.

    Args:
        root: The folder on the path in which modules are looked up.
        within: The only top-level name whose modules count; None for all of the root.
    """
    found, left = [file], [file]
    while left:
        for name in _imported(left.pop(), root):
            top = name.partition(".")[0]
            is_own = top == within if within else top not in sys.stdlib_module_names
            if not is_own or top in OURS:
                continue
            new = [path for path in _files_of(name, root) if path not in found]
            found += new
            left += new
    return found


def module_file(name: str, root: Path) -> Path | None:
    """The file of a module in a folder; None if it has none there."""
    path = root.joinpath(*name.split("."))
    # A package comes before a module of the same name, as for Python.
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((one for one in candidates if one.is_file()), None)


def _files_of(name: str, root: Path) -> Iterator[Path]:
    """The files that the import of a module executes: those of its packages, then its own."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        if file := module_file(".".join(parts[:length]), root):
            yield file


def _imported(file: Path, root: Path) -> Iterator[str]:
    """The full names of all modules that a file may import; attributes are among them."""
    # Only a broken file cannot be parsed; its import says what is wrong.
    with suppress(SyntaxError, ValueError, OSError):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = file.relative_to(root).parent.parts if node.level else ()
                kept = package[: len(package) - node.level + 1] if node.level else ()
                base = ".".join([*kept, *([node.module] if node.module else [])])
                if base:
                    yield base
                prefix = f"{base}." if base else ""
                yield from (f"{prefix}{alias.name}" for alias in node.names if alias.name != "*")
