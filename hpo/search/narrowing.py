"""Narrowing of a search space by its user: fixed parameters and narrower ranges.

    --set width=64 --range lr=1e-4,1e-2,log

Border: the objective's declaration stays unchanged. Its `suggest` gets a trial that samples within
the narrower bounds, and gives each value as the storage gives it back, so that the objective need
not know of either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hpo.errors import ConfigurationError
from hpo.search import roundtrip
from objectives import Choice, Float, Int, Objective, Params, Space, Trial

Spec = Float | Int | Choice
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """The user's fixed values and ranges, as plain data that a study stores.

    Attributes:
        fixed: Values by parameter.
        ranges: (low, high, True for a log scale) by parameter.
    """

    fixed: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def apply(self, space: Space) -> dict[str, Spec]:
        """The space within the narrower bounds; defaults are moved into them."""
        return {name: self._narrow(name, spec) for name, spec in space.items()}

    def _narrow(self, name: str, spec: Spec) -> Spec:
        if name in self.fixed:
            value = self.fixed[name]
            if isinstance(spec, Choice):
                return Choice(choices=(value,), default=value)
            return replace(spec, low=value, high=value, default=value)
        if name in self.ranges and not isinstance(spec, Choice):
            low, high, log = self.ranges[name]
            default = min(max(spec.default, low), high)
            return replace(spec, low=low, high=high, default=default, log=log)
        return spec

    def suggest(self, objective: Objective, trial: Trial, space: str) -> Params:
        """The parameters that the objective suggests for a trial within these bounds.

        Raises:
            ValueError: The objective asks for a value that would be recorded as another one.
        """
        specs = self.apply(objective.spaces[space])
        own = {name: specs[name] for name in (*self.fixed, *self.ranges)}
        asked = _NarrowTrial(trial, own)
        params = objective.suggest(asked, space)
        for name, value in asked.recorded.items():
            # A mapping of another kind is refused by its reader.
            given = params[name] if isinstance(params, Mapping) and name in params else value
            if not _is_same(given, value):
                raise ValueError(
                    f"suggest() gives '{name}' as {given!r}, and {value!r} is recorded for it; "
                    "give what is computed from a parameter another name"
                )
        return params

    def defaults(self, objective: Objective, space: str) -> Params:
        """The objective's default configuration, moved into these bounds."""
        specs = self.apply(objective.spaces[space])
        own = {name: specs[name].default for name in (*self.fixed, *self.ranges)}
        return {**objective.defaults(space), **own}


class _NarrowTrial:
    """A trial with bounds of its own, not its caller's, whose values are as they are stored."""

    def __init__(self, trial: Trial, specs: Mapping[str, Spec]) -> None:
        self._trial, self._specs = trial, specs
        self.recorded: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        spec = self._specs.get(name)
        if isinstance(spec, Float):
            low, high, log = spec.low, spec.high, spec.log
        value = self._trial.suggest_float(name, low, high, step=None if log else step, log=log)
        return self._noted(name, roundtrip.number(name, value, is_whole=False))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        spec = self._specs.get(name)
        if isinstance(spec, Int):
            low, high, log = spec.low, spec.high, spec.log
        value = self._trial.suggest_int(name, low, high, step=1 if log else step, log=log)
        return int(self._noted(name, roundtrip.number(name, value, is_whole=True)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        spec = self._specs.get(name)
        if isinstance(spec, Choice):
            choices = spec.choices
        value = self._trial.suggest_categorical(name, choices)
        return self._noted(name, roundtrip.choice(name, value, choices))

    def _noted(self, name: str, value: T) -> T:
        self.recorded[name] = value
        return value


def _is_same(given: Any, recorded: Any) -> bool:
    """Return whether a value is the recorded one; a numpy number may stand for Python's."""
    try:
        return bool(given == recorded)
    except (TypeError, ValueError, RuntimeError):
        return False


def narrowing(space: Space, fixed: Mapping[str, Any], ranges: Mapping[str, Any]) -> Narrowing:
    """Check fixed values and ranges against a space.

    Args:
        fixed: Values, or their text, by parameter.
        ranges: 'low,high', 'low,high,log', 'low,high,linear', or the same as a list.

    Raises:
        ConfigurationError: A parameter is unknown, or a value is not one of its values.
    """
    both = sorted(set(fixed) & set(ranges))
    if both:
        raise ConfigurationError(f"'{both[0]}' is both fixed and given a range; drop one of them")
    for name in (*fixed, *ranges):
        if name not in space:
            flag = "--set" if name in fixed else "--range"
            raise ConfigurationError(
                f"the search space has no parameter '{name}'; it has {', '.join(space)} ({flag})"
            )
    return Narrowing(
        fixed={name: value_of(name, space[name], given) for name, given in fixed.items()},
        ranges={name: _range_of(name, space[name], given) for name, given in ranges.items()},
    )


def value_of(name: str, spec: Spec, given: Any, *, flag: str = "--set") -> Any:
    """Convert a given value, or its text, to a value of the parameter.

    Raises:
        ConfigurationError: It is not one of the parameter's values.
    """
    if isinstance(spec, Choice):
        for choice in spec.choices:
            if given == choice and isinstance(given, bool) == isinstance(choice, bool):
                return choice
        for choice in spec.choices:
            if isinstance(given, str) and given == str(choice):
                return choice
        # A number is the same however it is written: 0 for 0.0, 1e-3 for 0.001.
        number = _number(given, whole=False) if isinstance(given, str) else None
        for choice in spec.choices:
            is_number = isinstance(choice, int | float) and not isinstance(choice, bool)
            if is_number and number == choice:
                return choice
    else:
        value = _number(given, whole=isinstance(spec, Int))
        if value is not None and spec.low <= value <= spec.high:
            return int(value) if isinstance(spec, Int) else float(value)
    raise ConfigurationError(
        f"{name}={given} is not within the search space, where it is {_described(spec)} ({flag})"
    )


def kind_of(spec: Spec) -> str:
    """A parameter's kind: `choice`, `float` or `int`, with ', log' on a log scale."""
    if isinstance(spec, Choice):
        return "choice"
    return f"{'int' if isinstance(spec, Int) else 'float'}{', log' if spec.log else ''}"


def values_of(spec: Spec) -> str:
    """A parameter's values in words, for example '0.0001 to 0.03'."""
    if isinstance(spec, Choice):
        return ", ".join(str(choice) for choice in spec.choices)
    if spec.low == spec.high:
        return f"{spec.low:.12g}"
    return f"{spec.low:.12g} to {spec.high:.12g}"


def _described(spec: Spec) -> str:
    if isinstance(spec, Choice):
        return f"one of {values_of(spec)}"
    kind = "a whole number from " if isinstance(spec, Int) and spec.low < spec.high else ""
    return f"{kind}{values_of(spec)}"


def _range_of(name: str, spec: Spec, given: Any) -> list[Any]:
    """[low, high, log], as JSON stores it, within the parameter's own bounds."""
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    parts = list(given) if is_list else str(given).split(",")
    scale = parts.pop().strip() if len(parts) == 3 and isinstance(parts[2], str) else ""
    if len(parts) != 2 or scale not in ("", "log", "linear"):
        shown = ",".join(map(str, parts + [scale] * bool(scale)))
        raise ConfigurationError(
            f"'{name}={shown}' is no range; write {name}=LOW,HIGH or {name}=LOW,HIGH,log (--range)"
        )
    if isinstance(spec, Choice):
        raise ConfigurationError(
            f"'{name}' is {_described(spec)}, and has no range; fix it with --set {name}=VALUE"
        )
    low, high = (value_of(name, spec, part, flag="--range") for part in parts)
    log = spec.log if not scale else scale == "log"
    if low > high or (log and low <= 0):
        what = "its low end is above its high one" if low > high else "log needs a low end above 0"
        raise ConfigurationError(f"'{name}={low},{high}' is no range: {what} (--range)")
    return [low, high, log]


def _number(given: Any, *, whole: bool) -> float | int | None:
    """Convert a number or its text; return None unless it is finite and, if asked, whole.

    A whole number keeps each digit: beyond 2**53 a float would make another one of it.
    """
    if isinstance(given, bool):
        return None
    if isinstance(given, str | int):
        with suppress(ValueError):
            return int(given)
    try:
        value = float(given)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(value) or (whole and value != int(value)):
        return None
    return int(value) if whole else value
