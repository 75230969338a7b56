"""Configurations in a file: what `best --save` writes, what `--enqueue` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError
from hpo.narrowing import value_of
from objectives import Params, Space

_FORM = "{\"lr\": 0.01, ...}, a list of such, or a file of 'python -m hpo best --save FILE'"


def read(path: Path) -> list[Params]:
    """The configurations of a JSON file: one, a list, or what `best` gives.

    Raises:
        ConfigurationError: It cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read '{path}': {error.strerror or error} (--enqueue)"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"'{path}' is no text file; write {_FORM}") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"'{path}' is no JSON: {error.msg} in line {error.lineno}, column {error.colno}; "
            f"write {_FORM}"
        ) from error
    except RecursionError as error:
        raise ConfigurationError(f"'{path}' is nested too deeply; write {_FORM}") from error
    configurations = _entries(found)
    if not configurations:
        raise ConfigurationError(f"'{path}' holds no configuration; write {_FORM}")
    return configurations


def given(found: Any) -> list[Params]:
    """Configurations of a program: one, several, or the path of their file."""
    if isinstance(found, str | Path):
        return read(Path(found))
    configurations = _entries(found)
    if configurations is None:
        raise ConfigurationError(f"{found!r} is no configuration, nor several (enqueue)")
    return configurations


def _entries(found: Any) -> list[Params] | None:
    """One configuration or several, as a list; None where it is something else."""
    entries = list(found) if isinstance(found, list | tuple) else [found]
    if not all(isinstance(entry, Mapping) for entry in entries):
        return None
    return [_params(entry) for entry in entries]


def _params(entry: Mapping[str, Any]) -> Params:
    inner = entry.get("params")
    return inner if isinstance(inner, Mapping) else entry


def checked(configurations: Sequence[Params], space: Space) -> list[dict[str, Any]]:
    """The configurations with each value as its parameter has it.

    Raises:
        ConfigurationError: A parameter is unknown, or a value is not within the space.
    """
    return [_checked(configuration, space) for configuration in configurations]


def _checked(configuration: Params, space: Space) -> dict[str, Any]:
    unknown = sorted(set(configuration) - set(space))
    if unknown:
        raise ConfigurationError(
            f"the search space has no parameter '{unknown[0]}'; it has {', '.join(space)} "
            "(--enqueue)"
        )
    if not configuration:
        raise ConfigurationError("a configuration to try is empty (--enqueue)")
    return {
        name: value_of(name, space[name], given, flag="--enqueue")
        for name, given in configuration.items()
    }
