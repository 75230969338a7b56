"""Run every check of this machine and its database, and yield each finding at once.

    for finding in diagnose(url):
        ...

Border: prints nothing and repairs nothing. It leaves the embedded server running, as any other
command does. The light checks come first, those that need torch (2 s) last.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

from hpo.doctor.finding import Finding, failed, guarded, ok
from hpo.embedded.cures import cure
from hpo.machine.slots import usable_cores

CONSTRAINTS = Path(__file__).parent.parent.parent / "constraints.txt"
_INSTALL = ".venv/bin/pip install -c constraints.txt -e . (in the clone)"


def diagnose(storage: str | None = None) -> Iterator[Finding]:
    """Examine the machine and the database.

    Args:
        storage: The database's URL; None for the one in HPO_STORAGE, else the embedded server.
    """
    yield from guarded("python", _python)
    yield from guarded("packages", _packages)
    yield from guarded("constraints", _constraints)
    # Each part imports its own packages, so that a missing one fails this part alone.
    yield from guarded("machine", _machine)
    yield from guarded("database", partial(_database, storage))
    yield from guarded("torch", _torch)


def compare_hosts(storage: str | None, study_name: str | None) -> Iterator[Finding]:
    """Compare the hosts that work or worked on a study.

    Args:
        storage: The database's URL; None for the one in HPO_STORAGE, else the embedded server.
        study_name: The study's; None for the only one.
    """

    def check() -> Iterator[Finding]:
        from hpo.doctor import fleet
        from hpo.environ import storage_url

        yield from fleet.examine(storage_url(storage), study_name)

    yield from guarded("fleet", check)


def _python() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    needed = metadata.metadata("hpo")["Requires-Python"]
    version = sys.version.split()[0]
    if SpecifierSet(needed).contains(version, prereleases=True):
        yield ok("python", f"{version}, in '{sys.prefix}'")
    else:
        yield failed("python", f"{version}, and {needed} is needed", "python3.11 -m venv .venv")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in metadata.requires("hpo") or []]
    wrong, right = [], []
    for requirement in needed:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
        else:
            right.append(f"{requirement.name} {version}")
    if wrong:
        yield failed("packages", "; ".join(wrong), _INSTALL)
    else:
        yield ok("packages", ", ".join(right))


def _constraints() -> Iterator[Finding]:
    """Report versions that differ from the tested ones; that is never a failure."""
    from packaging.requirements import Requirement

    if not CONSTRAINTS.exists():
        return
    lines = (line.partition("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines())
    every = [Requirement(line) for line in lines if line]
    versions = {pin.name: _version(pin.name) for pin in every}
    # Ray is there for those who use it; a missing package that all need is found by `_packages`.
    pinned = [pin for pin in every if versions[pin.name]]
    others = [
        f"{pin.name} {versions[pin.name] or '-'} instead of {pin.specifier}"
        for pin in pinned
        if not pin.specifier.contains(versions[pin.name] or "0", prereleases=True)
    ]
    if others:
        yield ok("constraints", f"not as tested, which may be meant: {', '.join(others)}")
    else:
        yield ok("constraints", f"as tested ({len(pinned)} in constraints.txt)")


def _machine() -> Iterator[Finding]:
    from hpo.doctor import machine
    from hpo.environ import home

    for name, check in machine.checks(home()).items():
        yield from guarded(name, check)


def _database(storage: str | None) -> Iterator[Finding]:
    from hpo.doctor import database
    from hpo.environ import home, named_storage

    yield from database.examine(home(), named_storage(storage))


def _torch() -> Iterator[Finding]:
    # If no thread can be started, torch's libraries end the whole process: try it first.
    ends = threading.Event()
    threads = [threading.Thread(target=ends.wait, daemon=True) for _ in range(usable_cores())]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:
        yield failed("torch", f"not looked at: {error}", cure("cannot fork"))
        return
    finally:
        ends.set()

    from hpo.doctor import torch_check
    from hpo.environ import visible_gpus

    yield from guarded("gpu", partial(torch_check.gpus, visible_gpus()))
    yield from guarded("precision", torch_check.precision)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
