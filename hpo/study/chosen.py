"""The options that may be left to an objective, with their values in a study and why it has them.

Border: words for the start of a run; `Objective.settle` chooses.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpo.study.config import StudyConfig
from objectives import AUTO, Objective, complete, left_to_study


def chosen(
    objective: Objective, config: StudyConfig, asked: Mapping[str, str], *, is_new: bool
) -> dict[str, str]:
    """Each option with the choice `auto`: its value, and who chose it.

    Args:
        asked: The options that this run asks for.
    """
    asked = left_to_study(objective.options, asked)
    names = [name for name, option in objective.options.items() if AUTO in option.choices]
    is_auto = is_new and any(name not in asked for name in names)
    reasons = objective.reasons(config.options, config.size) if is_auto else {}
    values = complete(objective.options, config.options)
    found = {}
    for name in names:
        why = "asked for" if name in asked else "the study's"
        if is_new and name not in asked:
            why = f"auto: {reasons[name]}" if name in reasons else "auto"
        found[name] = f"{values[name]} ({why})"
    return found
