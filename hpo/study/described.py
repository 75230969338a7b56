"""An objective of another process: its declarations as plain data, its hooks as calls there.

A run's own process compares and checks what an objective declares, and never imports its code, nor
torch with it: its first worker has both, and answers (`hpo.cli.first_look`).

Border: plain data and back; `hpo.fleet.first` carries it from one process to the other.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Literal, NoReturn

from hpo import errors
from objectives import (
    Choice,
    Context,
    Float,
    Int,
    Objective,
    Option,
    Params,
    Space,
    Task,
    Trial,
    options_of,
)

# A run calls these between its start and its study.
HOOKS = ("defaults", "problem_seed", "reasons", "settle", "spaces_for")
_KINDS: Mapping[str, type[Float | Int | Choice]] = {"float": Float, "int": Int, "choice": Choice}
Ask = Callable[..., Any]


def description(objective: Objective, source: str, class_hash: str | None) -> dict[str, Any]:
    """An objective's declarations, checked before, as plain data.

    Args:
        source: Hashes of its files.
        class_hash: Hash of its class's file.
    """
    return {
        "name": objective.name,
        "metric": objective.metric,
        "direction": objective.direction,
        "sizes": list(objective.sizes),
        "options": {name: asdict(one) for name, one in objective.options.items()},
        "spaces": written(objective.spaces),
        "has_other_spaces": type(objective).spaces_for is not Objective.spaces_for,
        "suggests_itself": type(objective).suggest is not Objective.suggest,
        "source": source,
        "class_hash": class_hash,
    }


def written(spaces: Mapping[str, Space]) -> dict[str, Any]:
    """Search spaces as plain data."""
    return {
        name: {parameter: _written(spec) for parameter, spec in space.items()}
        for name, space in spaces.items()
    }


def _spaces(found: Mapping[str, Any]) -> dict[str, Space]:
    return {
        name: {parameter: _read(one) for parameter, one in space.items()}
        for name, space in found.items()
    }


def _written(spec: Float | Int | Choice) -> dict[str, Any]:
    """A parameter as plain data; an objective's own class of one is the contract's here."""
    kind = next(name for name, one in _KINDS.items() if isinstance(spec, one))
    names = _KINDS[kind].__dataclass_fields__
    return {"kind": kind, **{name: getattr(spec, name) for name in names}}


def _read(written: Mapping[str, Any]) -> Float | Int | Choice:
    values = dict(written)
    kind = _KINDS[values.pop("kind")]
    if kind is Choice:
        values["choices"] = tuple(values["choices"])
    return kind(**values)


class Described(Objective):
    """An objective by its description; `ask` calls a hook where its code is.

    There the hook is called of the objective bound to the options `under`, as it is here.
    """

    # Of the class in the contract, of each object here.
    name: str  # type: ignore[misc]
    metric: str  # type: ignore[misc]
    direction: Literal["minimize", "maximize"]  # type: ignore[misc]
    spaces: Mapping[str, Space]  # type: ignore[misc]
    options: Mapping[str, Option]  # type: ignore[misc]
    sizes: tuple[str, ...]  # type: ignore[misc]

    def __init__(self, written: Mapping[str, Any], ask: Ask) -> None:
        self.name, self.metric, self.direction = (
            written["name"],
            written["metric"],
            written["direction"],
        )
        self.source: str = written["source"]
        self.class_hash: str | None = written["class_hash"]
        self.sizes = tuple(written["sizes"])
        self.options = {
            name: Option(**{**one, "choices": tuple(one["choices"])})
            for name, one in written["options"].items()
        }
        self.spaces = _spaces(written["spaces"])
        self._has_other_spaces: bool = written["has_other_spaces"]
        self._ask = ask

    @staticmethod
    def of(written: Mapping[str, Any], ask: Ask) -> Described:
        """The described objective; one that suggests by itself is of a class that says so."""
        return (_Suggesting if written["suggests_itself"] else Described)(written, ask)

    def spaces_for(self, options: Mapping[str, str]) -> Mapping[str, Space]:
        if not self._has_other_spaces:
            return self.spaces
        return _spaces(self._ask("spaces_for", dict(options)))

    def defaults(self, space: str) -> Params:
        found: Params = self._ask("defaults", space, under=options_of(self))
        return found

    def problem_seed(self, size: str) -> int:
        found: int = self._ask("problem_seed", size)
        return found

    def settle(self, options: Mapping[str, str], size: str, precision: str) -> Mapping[str, str]:
        found: Mapping[str, str] = self._ask("settle", dict(options), size, precision)
        return found

    def reasons(self, options: Mapping[str, str], size: str) -> Mapping[str, str]:
        found: Mapping[str, str] = self._ask("reasons", dict(options), size)
        return found

    def build(self, params: Params, context: Context) -> Task:
        raise NotImplementedError("no trial is built in the process of a run")


class _Suggesting(Described):
    """One whose `suggest` may ask for other parameters than its spaces declare."""

    def suggest(self, trial: Trial, space: str) -> Params:
        raise NotImplementedError("no trial is asked in the process of a run")


def as_data(error: BaseException) -> dict[str, Any]:
    """An exception as plain data, its traceback for `--verbose`."""
    return {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "text": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


def raise_again(error: Mapping[str, Any]) -> NoReturn:
    """Raise an exception of another process as the nearest class that there is here, too."""
    for name in error["kinds"]:
        kind = getattr(errors, name, None) or getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            # Some, as UnicodeDecodeError, are not made of a text; their bases are.
            with suppress(TypeError):
                found = kind(error["text"])
                break
    else:
        found = RuntimeError(f"{error['kinds'][0]}: {error['text']}")
    if error.get("traceback"):
        found.add_note(error["traceback"])
    raise found
