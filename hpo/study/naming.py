"""The default name of a study: of objective, space and size, and of options that name it.

    ris_covariance-wide-tiny  ris_covariance-wide-tiny-transformer

Border: the name; `join` creates or joins the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.database.storage import TrialStorage
from hpo.errors import ConfigurationError
from hpo.study import study
from hpo.study.resolve import settle
from objectives import Objective, complete, left_to_study


def plain_name(name: str, wanted: Mapping[str, Any]) -> str:
    """The name of a study without options, of its objective's name."""
    return f"{name}-{wanted['space']}-{wanted['size']}"


def usual_name(storage: TrialStorage, objective: Objective, wanted: Mapping[str, Any]) -> str:
    """The name of the study that a run without a name creates or joins.

    Values that name a study are left out where a study without them has the same ones, or, if there
    is none, where the default would be settled as these: so what a run without the option began
    goes on with it, too, and another value begins a study of its own.
    """
    plain = plain_name(objective.name, wanted)
    declared = objective.options
    asked = left_to_study(declared, wanted.get("options", {}))
    naming = {n: v for n, v in asked.items() if n in declared and declared[n].names_study}
    if not naming:
        return plain
    whole = "-".join((plain, *naming.values()))
    before = study.find(storage, plain)
    if before is not None:
        known = complete(declared, before.config.options)
        return plain if all(known.get(n) == v for n, v in naming.items()) else whole
    if study.find(storage, whole) is not None:
        return whole
    others = {name: value for name, value in asked.items() if name not in naming}
    defaults = {name: option.default for name, option in declared.items()}
    try:
        usual = settle(objective, {**defaults, **others}, wanted)
    except ConfigurationError:
        # The objective needs the option.
        return whole
    return plain if all(usual.get(n) == v for n, v in naming.items()) else whole
