"""`--slurm_NAME VALUE`: options of `run` that pass through to sbatch, whichever it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PREFIX = "slurm_"


def taken_out(args: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take the options for sbatch out of a command line.

    An option without a value, as `--slurm_exclusive`, is True.

    Returns:
        The other words, and the options by names with underscores.
    """
    left: list[str] = []
    found: dict[str, Any] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if not name.startswith(f"__{_PREFIX}"):
            left.append(word)
            continue
        has_value = not equals and bool(words) and not words[0].startswith("--")
        key = name.removeprefix(f"__{_PREFIX}")
        found[key] = value if equals else words.pop(0) if has_value else True
    return left, found


def of_file(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the options for sbatch out of the flags from a file, as `taken_out` does."""
    found = {
        name.removeprefix(_PREFIX): value
        for name, value in config.items()
        if name.startswith(_PREFIX)
    }
    return {k: v for k, v in config.items() if not k.startswith(_PREFIX)}, found
