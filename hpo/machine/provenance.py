"""Provenance of a result: host, interpreter, packages, device, and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "optuna", "sqlalchemy", "psycopg2-binary", "optuna-dashboard", "numpy")


def environment(*, device: str, threads: int) -> dict[str, Any]:
    """Facts that a result may depend on: host, interpreter, packages, device, threads, hashes."""
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": device,
        "threads": threads,
        "cpus": os.cpu_count(),
        # Hashes of texts, and so the order of sets, are the same in each process only with seed 0.
        "hash_seed": "random" if sys.flags.hash_randomization else "0",
    }


def git_sha() -> str:
    """The commit that this program was started from; '-' if it is not in a clone."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "-"
    return found.stdout.strip() or "-"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
