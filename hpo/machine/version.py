"""The version of the code that trains: hashes of sources, and versions of packages.

Two workers with one version train a configuration alike, as far as code decides it. Border: reads
files and names, compares; `tickets.crew` says which version a study's fleet has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

Version = Mapping[str, str]

_ROOT = Path(__file__).parents[2]
# An objective may use any of these three, so the whole of each counts.
_OURS = ("hpo", "models", "objectives")
_PACKAGES = ("torch", "optuna")
_OBJECTIVE = "objective"


def code_version(objective: str | None) -> Version:
    """The version of the code in this interpreter's packages, and of an objective.

    Args:
        objective: The hashes of its files, as `study.objective.source_hash` gives them; None for
            no objective.
    """
    # 298 files of 1.6 MB take 6 ms, and the names of two packages 1 to 2 ms.
    found = {"hpo": _sources(), **{name: _version(name) for name in _PACKAGES}}
    if objective is not None:
        own, *others = objective.split(" ")
        found[_OBJECTIVE] = own
        for one in others:
            name, _, value = one.rpartition("=")
            found[f"{_OBJECTIVE}'s {unquote(name)}"] = value
    return found


def differences(here: Version, there: Version) -> list[str]:
    """What differs, with both values: 'torch 2.13.0 here, 2.12.1 there'."""
    return [
        f"{name} {here[name]} here, {there[name]} there"
        for name in here
        # A file that only one of them names is imported by a computed name, or by one of those
        # that both have, which then differs.
        if name in there and here[name] != there[name]
    ]


def digest(version: Version) -> str:
    """Eight letters that stand for a version."""
    text = "\0".join(f"{name}={version[name]}" for name in sorted(version))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


@cache
def _sources() -> str:
    """The hash of the names and the contents of our own source files."""
    found = hashlib.blake2b(digest_size=6)
    for path in sorted(path for name in _OURS for path in (_ROOT / name).rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(_ROOT)}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"
