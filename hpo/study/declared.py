"""Checks of an objective's declarations: its name, metric, direction, spaces, sizes, options.

Border: reads attributes and builds nothing; `hpo.check.rehearsal` checks a built trial.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hpo.search.roundtrip import LARGEST, is_stored, plain
from hpo.study.request import FLAGS
from objectives import AUTO, Choice, Float, Int, Objective, Option

State = Literal["ok", "warning", "failed"]
# Optuna's column for a parameter's name has this length.
_LONGEST_NAME = 512
# The flags of commands that take an objective's options, beside those of `run` that FLAGS declares.
OWN_FLAGS = frozenset(
    {
        *(flag.name for flag in FLAGS),
        *("config", "dry_run", "export_csv", "help", "json", "log_json", "quiet", "storage"),
        "verbose",
        *("count", "device", "ema", "epochs", "half", "out", "seeds", "stream", "trial"),
    }
)
_Problems = Iterator[str]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        detail: Reason and cure of a warning or a failure; the checked value if it is ok.
    """

    name: str
    state: State
    detail: str = ""


def declared(objective: Objective) -> list[Finding]:
    """Check each declaration of an objective against the contract."""
    findings = []
    for name, problems_of in _PARTS.items():
        problems = list(problems_of(getattr(objective, name, None)))
        findings += [Finding(name=name, state="failed", detail=problem) for problem in problems]
        if not problems:
            shown = _shown(getattr(objective, name))
            findings.append(Finding(name=name, state="ok", detail=shown))
    return findings


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, str) else ", ".join(value) or "none"


def _name(name: Any) -> _Problems:
    # The name becomes part of study names, so it must be a plain word.
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name):
        yield f"name is {name!r}; give the objective a name of letters, digits, '_' and '-'"


def _metric(metric: Any) -> _Problems:
    if not isinstance(metric, str) or not metric:
        yield f"metric is {metric!r}; name the key of what validate() returns that is optimized"


def _direction(direction: Any) -> _Problems:
    if direction not in ("minimize", "maximize"):
        yield f"direction is {direction!r}; write 'minimize' or 'maximize'"


def _sizes(sizes: Any) -> _Problems:
    if isinstance(sizes, str):
        yield f"sizes is the text {sizes!r}; write ({sizes!r},)"
    elif not (isinstance(sizes, Sequence) and sizes and all(isinstance(s, str) for s in sizes)):
        yield f"sizes is {sizes!r}; name at least one, as ('tiny', 'full')"


def _options(options: Any) -> _Problems:
    if not isinstance(options, Mapping):
        yield f"options is {options!r}; write a mapping of names to Option(default=...)"
        return
    for name, option in options.items():
        if not (isinstance(name, str) and name.isidentifier()):
            yield f"the option {name!r} becomes a flag; name it with letters, digits and '_'"
        elif name in OWN_FLAGS or name.startswith("slurm_"):
            yield f"the option '{name}' has the name of a flag of the service, --{name}; rename it"
        elif not isinstance(option, Option):
            yield f"option '{name}' is {option!r}; write Option(default=...)"
        elif not all(isinstance(text, str) for text in (option.default, *option.choices)):
            yield f"option '{name}' has a default or choice that is no text; a flag's value is text"
        elif option.choices and option.default not in option.choices:
            yield (
                f"option '{name}' has the default {option.default!r}, which is none of its "
                f"choices {', '.join(option.choices)}"
            )
        elif option.before is not None and (
            option.before == AUTO or (option.choices and option.before not in option.choices)
        ):
            yield (
                f"option '{name}' has before={option.before!r}; name the choice that older studies "
                "trained with"
            )


def space_problems(spaces: Any) -> _Problems:
    """The faults of search spaces, each as a sentence."""
    if not isinstance(spaces, Mapping) or not spaces:
        yield f"spaces is {spaces!r}; declare at least {{'wide': {{'lr': Float(...)}}}}"
        return
    for name, space in spaces.items():
        if not isinstance(space, Mapping) or not space:
            yield f"space '{name}' is {space!r}; give it at least one parameter"
            continue
        for parameter, spec in space.items():
            if not _is_name(parameter):
                yield (
                    f"space '{name}' has a parameter {parameter!r}; name it by a text of 1 to "
                    f"{_LONGEST_NAME} printable characters"
                )
            for problem in _spec(spec):
                yield f"'{parameter}' of space '{name}' {problem}"


def _spec(spec: Any) -> _Problems:
    """The faults of a parameter, each as the end of a sentence."""
    if isinstance(spec, Choice):
        yield from _choice(spec)
    elif isinstance(spec, Float | Int):
        yield from _bounds(spec)
    else:
        yield f"is {spec!r}; write Float(...), Int(...) or Choice(...)"


def _is_name(name: Any) -> bool:
    return type(name) is str and 0 < len(name) <= _LONGEST_NAME and name.isprintable()


def _choice(spec: Choice) -> _Problems:
    if isinstance(spec.choices, str) or not isinstance(spec.choices, Sequence) or not spec.choices:
        yield f"has the choices {spec.choices!r}; write a tuple of at least one value"
        return
    strange = [choice for choice in spec.choices if not is_stored(choice)]
    for choice in strange:
        yield (
            f"has the choice {choice!r}, which a database cannot give back as it is; choose "
            "among texts, finite numbers, True, False and None, and look the rest up in build()"
        )
    if strange:
        return
    for one, other in itertools.combinations(spec.choices, 2):
        if one == other:
            yield (
                f"has the choices {one!r} and {other!r}, which are equal to Python and to a "
                "database; leave one out, or name them by texts and look the values up in build()"
            )
    # False is in (0, 1), and would be trained as False and recorded as 0.
    default, plain_choices = plain(spec.default), map(plain, spec.choices)
    if not any(type(one) is type(default) and one == default for one in plain_choices):
        yield f"has the default {spec.default!r}, which is none of its choices {spec.choices!r}"


def _bounds(spec: Float | Int) -> _Problems:
    kind = type(spec).__name__
    for name in ("low", "high", "default"):
        value = getattr(spec, name)
        is_number = isinstance(value, int if kind == "Int" else int | float)
        if not is_number or isinstance(value, bool):
            yield f"has {name}={value!r}, which is no {kind.lower()}"
            return
        if isinstance(value, float) and not math.isfinite(value):
            yield f"has {name}={value!r}; bounds are finite"
            return
        if isinstance(value, int) and abs(value) > LARGEST:
            yield (
                f"has {name}={value}, beyond {LARGEST} (2**53): a database gives it back as "
                "another whole number; search an exponent, or an index into a table"
            )
            return
    if spec.low > spec.high:
        yield f"has low={spec.low} above high={spec.high}; exchange them"
    elif not spec.low <= spec.default <= spec.high:
        yield f"has default={spec.default}, outside of low={spec.low} and high={spec.high}"
    elif not math.isfinite(float(spec.high) - float(spec.low)):
        yield f"goes from low={spec.low} to high={spec.high}, further than a float reaches"
    if spec.log and spec.low <= 0:
        yield f"is on a log scale from low={spec.low}; raise low above 0 or leave log out"


_PARTS: Mapping[str, Callable[[Any], _Problems]] = {
    "name": _name,
    "metric": _metric,
    "direction": _direction,
    "spaces": space_problems,
    "sizes": _sizes,
    "options": _options,
}
