"""The search space: parameters, their ranges and choices, and the trial that suggests them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Params = Mapping[str, Any]


class Trial(Protocol):
    """The methods of an Optuna trial that `suggest` may call."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Float:
    """A real parameter from `low` to `high`, on a logarithmic scale if `log` is True."""

    low: float
    high: float
    default: float
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True, kw_only=True)
class Int:
    """An integer parameter from `low` to `high`, both included; `log` as in `Float`."""

    low: int
    high: int
    default: int
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A parameter that takes one of a few values."""

    choices: tuple[Any, ...]
    default: Any

    def suggest(self, trial: Trial, name: str) -> Any:
        return trial.suggest_categorical(name, self.choices)


Space = Mapping[str, Float | Int | Choice]
