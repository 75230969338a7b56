"""Configurations in a file: written by `best --save` or by hand, read by `--enqueue` and `train`.

Border: reads and checks; `search.narrowing` converts the values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError
from hpo.search.narrowing import value_of
from objectives import Params, Space

_ONE_FORM = "{\"lr\": 0.01, ...}, or take a file of 'python -m hpo best --save FILE'"
_FORM = "{\"lr\": 0.01, ...}, a list of such, or a file of 'python -m hpo best --save FILE'"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """One configuration, and its origin as its file gives it.

    Attributes:
        config: The study's configuration, as stored; None in a file written by hand.
    """

    params: Params
    config: Mapping[str, Any] | None = None
    study: str | None = None
    trial: int | None = None
    precision: str | None = None
    value: float | None = None


def read(path: Path) -> list[Params]:
    """The configurations of a JSON file: one, a list, or a file of `best --save`.

    Raises:
        ConfigurationError: The file cannot be read, or holds something else.
    """
    configurations = _entries(_loaded(path, "--enqueue"))
    if not configurations:
        raise ConfigurationError(f"'{path}' holds no configuration; write {_FORM}")
    return configurations


def read_one(path: Path) -> Saved:
    """The one configuration of a JSON file.

    Raises:
        ConfigurationError: The file cannot be read, or holds none or several.
    """
    loaded = _loaded(path, "FILE")
    entries = loaded if isinstance(loaded, list) else [loaded]
    if not (entries and all(isinstance(entry, Mapping) for entry in entries)):
        raise ConfigurationError(f"'{path}' holds no configuration; write {_ONE_FORM}")
    if len(entries) > 1:
        raise ConfigurationError(
            f"'{path}' holds {len(entries)} configurations, and one can be trained; write "
            f"{_ONE_FORM}"
        )
    entry = entries[0]
    if not isinstance(entry.get("params"), Mapping):
        return Saved(params=entry)
    kinds = {"study": str, "trial": int, "precision": str, "value": float}
    found = {name: entry[name] for name, kind in kinds.items() if isinstance(entry.get(name), kind)}
    config = entry.get("settings")
    return Saved(
        params=entry["params"], config=config if isinstance(config, Mapping) else None, **found
    )


def _loaded(path: Path, flag: str) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read '{path}': {error.strerror or error} ({flag})"
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


def given(found: Any) -> list[Params]:
    """Configurations that a program gives: one, several, or the path of their file."""
    if isinstance(found, str | Path):
        return read(Path(found))
    configurations = _entries(found)
    if configurations is None:
        raise ConfigurationError(f"{found!r} is no configuration, nor several (enqueue)")
    return configurations


def _entries(found: Any) -> list[Params] | None:
    """One configuration or several, as a list; None for anything else."""
    entries = list(found) if isinstance(found, list | tuple) else [found]
    if not all(isinstance(entry, Mapping) for entry in entries):
        return None
    return [_params(entry) for entry in entries]


def _params(entry: Mapping[str, Any]) -> Params:
    inner = entry.get("params")
    return inner if isinstance(inner, Mapping) else entry


def checked(
    configurations: Sequence[Params], space: Space, *, flag: str = "--enqueue"
) -> list[dict[str, Any]]:
    """The configurations, each value converted to its parameter's type.

    Raises:
        ConfigurationError: A parameter is unknown, or a value is outside the space.
    """
    return [_checked(configuration, space, flag) for configuration in configurations]


def _checked(configuration: Params, space: Space, flag: str) -> dict[str, Any]:
    unknown = sorted(set(configuration) - set(space))
    if unknown:
        raise ConfigurationError(
            f"the search space has no parameter '{unknown[0]}'; it has {', '.join(space)} ({flag})"
        )
    if not configuration:
        raise ConfigurationError(f"a configuration to try is empty ({flag})")
    return {
        name: value_of(name, space[name], given, flag=flag) for name, given in configuration.items()
    }
