"""Options: settings of the problem itself that an objective declares as flags.

Border: their declaration, and what a study has that is older than one; `hpo.study` checks values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A choice of this name leaves the value of a new study to `Objective.settle`.
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Option:
    """A setting of the problem itself: a flag of `run`, stored with the study that it creates.

    Attributes:
        choices: Allowed values; empty if every text is allowed. With `auto` among them,
            `Objective.settle` chooses another one for a new study; where there is a study, `auto`
            is that study's.
        before: Value in studies that are older than the option; None for the default.
        names_study: True if the default name of a study has a value that the default is not.
    """

    default: str
    choices: tuple[str, ...] = ()
    help: str = ""
    before: str | None = None
    names_study: bool = False


def complete(declared: Mapping[str, Option], stored: Mapping[str, str]) -> dict[str, str]:
    """The options of a study, with those that it is too old to have."""
    older = {
        name: option.default if option.before is None else option.before
        for name, option in declared.items()
    }
    return {**older, **stored}


def left_to_study(declared: Mapping[str, Option], asked: Mapping[str, str]) -> dict[str, str]:
    """The options that are asked for, without those whose `auto` is what the study has."""
    return {
        name: value
        for name, value in asked.items()
        if not (value == AUTO and name in declared and AUTO in declared[name].choices)
    }
