"""`--config study.toml`: a run's flags in a file; flags on the command line win."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError

# These flags repeat, so a list is accepted, `set = ["lr=0.01"]`, and a table, `[set]` with
# `lr = 0.01`.
_TABLES = ("set", "range")


def flag_value(args: Sequence[str], flag: str) -> str | None:
    """Return a flag's value among the arguments; None if the flag is not given."""
    for here, following in zip(args, [*args[1:], None]):
        name, equals, value = here.partition("=")
        if name.replace("-", "_") == f"__{flag}":
            return value if equals else following
    return None


def read_config(path: Path) -> dict[str, Any]:
    """Read flags from a TOML file, by their names, with values as click takes them.

    Raises:
        ConfigurationError: The file cannot be read, or is no TOML.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read '{path}': {error.strerror or error} (--config)"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"'{path}' is no TOML: {error} (--config)") from error
    return {name.replace("-", "_"): _plain(name, value, path) for name, value in found.items()}


def _plain(name: str, value: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        if name not in _TABLES:
            raise ConfigurationError(
                f"'{path}' has a table [{name}]; its keys are the names of flags, and only "
                "[set] and [range] are tables (--config)"
            )
        return [f"{key}={_joined(one)}" for key, one in value.items()]
    if isinstance(value, list):
        return [str(one) for one in value] if name in _TABLES else _joined(value)
    return [value] if name in _TABLES else value


def _joined(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def refuse_unknown(config: Mapping[str, Any], known: Sequence[str], path: Path) -> None:
    """Raise `ConfigurationError` if a file has a key that names no flag."""
    unknown = [name for name in config if name not in known]
    if unknown:
        from difflib import get_close_matches

        close = get_close_matches(unknown[0], known, n=1)
        meant = f"did you mean '{close[0]}'?" if close else "'python -m hpo run --help' lists them"
        raise ConfigurationError(f"'{path}': there is no flag '{unknown[0]}'; {meant} (--config)")
