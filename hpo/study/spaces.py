"""Search spaces of an objective under options: of one study, and of each choice there is.

Border: `objectives.bound` binds; here its result is checked, and listed for people.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.errors import ConfigurationError, ObjectiveError
from hpo.search.narrowing import Narrowing, narrowing
from hpo.study.declared import space_problems
from hpo.task.raised import described
from objectives import AUTO, Objective, Space, bound, options_of

# An objective with more combinations of choices is listed by each choice alone.
_MOST_COMBINATIONS = 64


@dataclass(frozen=True, kw_only=True)
class Under:
    """Search spaces under options.

    Attributes:
        options: The choices that decide on them, by option; empty if the spaces are the same under
            all options.
    """

    options: Mapping[str, str]
    spaces: Mapping[str, Space]

    @property
    def flags(self) -> str:
        """The options as flags: `--network unrolled`."""
        return " ".join(f"--{name} {value}" for name, value in self.options.items())


def bound_to(objective: Objective, options: Mapping[str, str]) -> Objective:
    """The objective bound to a study's options, whose search spaces are without fault.

    Raises:
        ObjectiveError: Its `spaces_for` raises, or gives something else.
    """
    try:
        found = bound(objective, options)
        if found is not objective:
            refuse_faulty(found.spaces)
    except (KeyboardInterrupt, ObjectiveError):
        raise
    except BaseException as error:
        raise ObjectiveError(
            f"objective '{objective.name}', in spaces_for(): {described(error)}"
        ) from error
    return found


def refuse_faulty(spaces: Any) -> None:
    """Raise `ObjectiveError` for search spaces with a fault, which is named."""
    fault = next(space_problems(spaces), None)
    if fault is not None:
        raise ObjectiveError(f"spaces_for() gave spaces with a fault: {fault}")


def space_of(objective: Objective, name: str) -> Space:
    """The search space of this name of an objective, bound to a study's options.

    Raises:
        ConfigurationError: It has none.
    """
    if name not in objective.spaces:
        raise ConfigurationError(
            f"objective '{objective.name}' has no space '{name}'; use one of "
            f"{', '.join(objective.spaces)} (--space)"
        )
    return objective.spaces[name]


def narrowed(
    objective: Objective, space: str, fixed: Mapping[str, Any], ranges: Mapping[str, Any]
) -> Narrowing:
    """Check fixed values and ranges against a space of an objective, bound to a study's options.

    Raises:
        ConfigurationError: A parameter is unknown, or a value is not one of its values.
    """
    specs = space_of(objective, space)
    unknown = next((name for name in (*fixed, *ranges) if name not in specs), None)
    if unknown is not None and depends_on_options(objective):
        having = [one for one in by_options(objective) if unknown in one.spaces.get(space, ())]
        if having:
            here = options_of(objective) or {}
            flags = " ".join(f"--{name} {here[name]}" for name in having[0].options)
            raise ConfigurationError(
                f"with {flags} the search space has no parameter '{unknown}', which it has with "
                f"{' or '.join(one.flags for one in having)}; here it has {', '.join(specs)} "
                f"({'--set' if unknown in fixed else '--range'})"
            )
    return narrowing(specs, fixed, ranges)


def depends_on_options(objective: Objective) -> bool:
    """Return whether an objective's search spaces may depend on its options."""
    return type(objective).spaces_for is not Objective.spaces_for


def by_options(objective: Objective) -> list[Under]:
    """The search spaces of an objective under the choices of its options, those that differ.

    Raises:
        ObjectiveError: Its `spaces_for` raises, or gives something else.
    """
    if not depends_on_options(objective):
        return [Under(options={}, spaces=objective.spaces)]
    found = [(each, bound_to(objective, each).spaces) for each in combinations(objective)]
    usual = found[0][0]
    # An option matters if a change of it alone changes the spaces.
    known = {tuple(each.items()): spaces for each, spaces in found}
    deciding = [
        name
        for name in objective.options
        if any(
            known.get(tuple({**each, name: usual[name]}.items()), spaces) != spaces
            for each, spaces in found
        )
    ]
    listed: dict[tuple[str, ...], Under] = {}
    for each, spaces in found:
        key = tuple(each[name] for name in deciding)
        options = {name: each[name] for name in deciding}
        listed.setdefault(key, Under(options=options, spaces=spaces))
    return list(listed.values())


def combinations(objective: Objective) -> Sequence[dict[str, str]]:
    """Combinations of the choices of an objective's options, the usual one first.

    `auto` is none of them, because no study stores it. Of more than a few dozen, those in which one
    option is not as usual.
    """
    choices = {name: _choices(option) for name, option in objective.options.items()}
    usual = {name: some[0] for name, some in choices.items()}
    whole = [
        dict(zip(choices, some, strict=True))
        for some in itertools.islice(itertools.product(*choices.values()), _MOST_COMBINATIONS + 1)
    ]
    if len(whole) <= _MOST_COMBINATIONS:
        return whole
    others = [{**usual, name: one} for name, some in choices.items() for one in some[1:]]
    return [usual, *others]


def _choices(option: Any) -> Sequence[str]:
    """The values of an option that a study may store, the usual one first."""
    some = [choice for choice in option.choices if choice != AUTO]
    if option.default in some or not some:
        some = [option.default, *(choice for choice in some if choice != option.default)]
    return some
