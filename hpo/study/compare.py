"""A run's request compared with the study that it joins, or with the space that it searches.

Border: reads, compares and refuses; `join` creates or changes the study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hpo.errors import ConfigurationError
from hpo.search import finite
from hpo.search.narrowing import Narrowing
from hpo.study.config import Difference, StudyConfig, differences, facts, refuse
from hpo.study.objective import changed_files, in_words, source_hash
from hpo.study.request import RunRequest
from hpo.study.resolve import check, check_search, settle
from hpo.study.spaces import bound_to, depends_on_options, narrowed
from hpo.study.study import OpenStudy
from objectives import Objective, complete, left_to_study


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A request compared with a study's configuration.

    Attributes:
        is_other: True if the study's trials were trained with another source or other settings.
    """

    created: StudyConfig
    wanted: StudyConfig
    found: Sequence[Difference]
    is_other: bool
    notes: Sequence[str]


def compared(opened: OpenStudy, objective: Objective, spec: str, request: RunRequest) -> Compared:
    """Compare a request with an existing study.

    Raises:
        StudyMismatch: The request differs from the study, without --force or beyond its reach.
        ConfigurationError: The request is impossible.
    """
    created, asked, notes = opened.config, request.asked(), []
    check(objective, {**asdict(created), **asked})
    now = {**asdict(created), **asked}
    before = complete(objective.options, created.options)
    own = left_to_study(objective.options, asked.pop("options", {}))
    options = settle(objective, {**before, **own}, now)
    if own:
        asked["options"] = {name: options[name] for name in own}
    changed = changed_files(objective, created.source)
    if changed:
        notes.append(
            f"{in_words(changed)} since study '{opened.name}' was created; "
            "its trials may not compare"
        )
    if spec != created.objective:
        if request.force or changed:
            asked["objective"] = spec
        else:
            notes.append(
                f"the study has the same objective's file as '{created.objective}'; --force has "
                "it remember this one, for runs that do not name it"
            )
    wanted = _wanted(created, objective, asked)
    found = differences(
        replace(created, options=before),
        wanted,
        asked,
        has_other_spaces=depends_on_options(objective),
    )
    if found and not (request.force and all(one.can_be_forced for one in found)):
        refuse(opened.name, found)
    check_search(wanted)
    return Compared(
        created=created,
        wanted=wanted,
        found=found,
        is_other=bool(found or changed),
        notes=notes,
    )


def _wanted(created: StudyConfig, objective: Objective, asked: Mapping[str, Any]) -> StudyConfig:
    """The study's configuration with the requested settings in place of its own."""
    options = {**created.options, **asked.get("options", {})}
    objective = bound_to(objective, options)
    name = asked.get("space", created.space)
    new = narrowed(objective, name, asked.get("fixed", {}), asked.get("ranges", {}))
    space = objective.spaces[name]
    # A newly fixed parameter loses its earlier range, and the reverse. Other options may search
    # other parameters.
    inherited = Narrowing(
        fixed={n: v for n, v in created.fixed.items() if n not in new.ranges and n in space},
        ranges={n: v for n, v in created.ranges.items() if n not in new.fixed and n in space},
    )
    moved = {"source": source_hash(objective)} if "objective" in asked else {}
    values = {
        **asdict(created),
        **asked,
        **moved,
        "options": options,
        "fixed": {**inherited.fixed, **new.fixed},
        "ranges": {**inherited.ranges, **new.ranges},
    }
    return replace(created, **{**values, **facts(objective, values)})


def refuse_repeats(
    config: StudyConfig, objective: Objective, request: RunRequest, *, total: int
) -> str:
    """Refuse more trials than there are configurations; the note on them if that is allowed.

    Raises:
        ConfigurationError: The rest would repeat configurations, and the request does not allow it.
    """
    objective = bound_to(objective, config.options)
    space = config.narrowing.apply(objective.spaces[config.space])
    count = finite.configurations(objective, space)
    if count is None or count >= total:
        return ""
    said = f"{count} configuration{'' if count == 1 else 's'} for {total} trials"
    if not request.allow_repeats:
        raise ConfigurationError(
            f"{said}: the rest would repeat one with another seed; write --n_trials {count}, or "
            "--allow_repeats"
        )
    return f"{said}: the rest repeat one with another seed"
