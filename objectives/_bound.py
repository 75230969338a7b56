"""An objective bound to a study's options: a copy whose `spaces` are those of the options.

So `suggest`, `defaults` and all else that reads `self.spaces` need not know of options. One whose
spaces do not depend on options is its own copy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from objectives._contract import Objective
from objectives._options import complete

_ORIGIN, _OPTIONS, _COPY = "_hpo_origin", "_hpo_options", "_hpo_copy"


def bound(objective: Objective, options: Mapping[str, str]) -> Objective:
    """The objective with the search spaces of a study with these options, as they are stored.

    While the options are the same it is the same copy: what a hook keeps in the objective, as a
    data set that took long to read, is there in the next trial.

    Raises:
        TypeError: Its spaces cannot be replaced.
        BaseException: Whatever its `spaces_for` raises.
    """
    origin = unbound(objective)
    if type(origin).spaces_for is Objective.spaces_for:
        return origin
    whole = complete(origin.options, options)
    if options_of(objective) == whole:
        return objective
    spaces = origin.spaces_for(dict(whole))
    known: Objective = vars(origin).get(_COPY, origin)
    if options_of(known) == whole and known.spaces == spaces:
        return known
    found = copy.copy(origin)
    vars(found).pop(_COPY, None)
    vars(found).update({"spaces": spaces, _ORIGIN: origin, _OPTIONS: whole})
    if found.spaces is not spaces:
        raise TypeError("'spaces' is a property; with spaces_for() make it a class attribute")
    vars(origin)[_COPY] = found
    return found


def unbound(objective: Objective) -> Objective:
    """The objective as it was loaded."""
    origin: Objective = vars(objective).get(_ORIGIN, objective)
    return origin


def options_of(objective: Objective) -> Mapping[str, str] | None:
    """The options that an objective is bound to; None if it is bound to none."""
    options: Mapping[str, str] | None = vars(objective).get(_OPTIONS)
    return options
