"""A study's configuration, and the differences between it and a later run's request.

Border: plain data; `study` stores it and finds the study that it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from hpo.errors import ConfigurationError, StudyMismatch
from hpo.search.narrowing import Narrowing, kind_of, values_of
from hpo.search.pruners import check_pruner
from hpo.search.samplers import check_sampler
from hpo.study.request import DEFAULTS
from objectives import Objective

# Studies, checkpoints, saved steps and weights store these fields under another key.
_STORED = {"epochs_per_trial": "epochs"}
# --force cannot change these: values of two metrics do not compare, and Optuna fixes a study's
# direction at its creation.
_UNCHANGEABLE = ("metric", "direction")
_FACTS = ("metric", "direction", "problem_seed")
# Optuna's column for a study's name has this length.
_LONGEST_NAME = 512


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The configuration that a study is created with, inherited by every run and every worker.

    Attributes:
        objective: Name, module or file for `objectives.load`; a file's path is absolute.
        source: Hashes of the objective's files, which reveal a change of one.
        problem_seed: Seed of the problem's data.
        seed: Seed of the search, the initialization and the training draws.
        on_precision_range: `prune` a configuration that fails only because of its precision, or
            `rerun` it once in a wider one.
        options: The objective's own options.
        fixed: Values of the parameters that are not searched.
        ranges: Narrowed ranges (low, high, log) of searched parameters.
        parameters: Kind and values, as texts, of each searched parameter.
        forced: Values at creation and now of the settings that `--force` changed later.
        revision: Number of changes by `--force`.
    """

    objective: str
    source: str
    metric: str
    direction: Literal["minimize", "maximize"]
    size: str
    epochs_per_trial: int
    space: str
    precision: str
    problem_seed: int
    seed: int
    sampler: str
    pruner: str
    on_precision_range: str
    options: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    forced: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    revision: int = 0

    def __post_init__(self) -> None:
        check_sampler(self.sampler)
        check_pruner(self.pruner)

    @property
    def narrowing(self) -> Narrowing:
        return Narrowing(fixed=self.fixed, ranges=self.ranges)

    def stored(self) -> dict[str, Any]:
        """The configuration as plain data, with the keys that studies and files store."""
        return {_STORED.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> StudyConfig:
        """Create a configuration from stored data; drop fields that this version does not know."""
        names = {_STORED.get(name, name): name for name in cls.__dataclass_fields__}
        known = {names[key]: value for key, value in stored.items() if key in names}
        # A study that was created before a setting existed has the setting's default.
        return cls(**{**DEFAULTS, **known})


def facts(objective: Objective, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `StudyConfig` that follow from an objective and the other settings.

    Args:
        objective: Bound to the options of the study.
    """
    narrowing = Narrowing(fixed=config.get("fixed", {}), ranges=config.get("ranges", {}))
    space = narrowing.apply(objective.spaces[config["space"]])
    return {
        "metric": objective.metric,
        "direction": objective.direction,
        "problem_seed": objective.problem_seed(config["size"]),
        "parameters": {
            name: {"kind": kind_of(spec), "values": values_of(spec)} for name, spec in space.items()
        },
    }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting with another value than at the creation of its study.

    Attributes:
        label: The flag or the parameter.
        is_asked: True if a flag requested the new value; else the objective itself has changed.
        can_be_forced: True if one study can hold trials with both values.
    """

    label: str
    created: Any
    now: Any
    is_asked: bool
    can_be_forced: bool = True

    def __str__(self) -> str:
        return f"{self.label} {_shown(self.created)} (now {_shown(self.now)})"


def differences(
    created: StudyConfig,
    wanted: StudyConfig,
    asked: Mapping[str, Any],
    *,
    has_other_spaces: bool = False,
) -> list[Difference]:
    """The differences between the requested settings and the ones that a study was created with.

    Args:
        has_other_spaces: True if the objective's search spaces may depend on its options.
    """
    found = []
    old, new = asdict(created), asdict(wanted)
    for name in (*asked, *(fact for fact in _FACTS if fact not in asked)):
        if name in ("options", "fixed", "ranges") or old[name] == new[name]:
            continue
        found.append(
            Difference(
                label=f"--{name}" if name in asked else name,
                created=old[name],
                now=new[name],
                is_asked=name in asked,
                can_be_forced=name not in _UNCHANGEABLE,
            )
        )
    for name, value in asked.get("options", {}).items():
        if old["options"].get(name) != value:
            before = old["options"].get(name)
            found.append(Difference(label=f"--{name}", created=before, now=value, is_asked=True))
    others = _other_parameters(created, wanted, asked)
    options = asked.get("options", {}) if has_other_spaces else {}
    covering = {"--space", *(f"--{name}" for name in options)}
    if covering.isdisjoint(one.label for one in found):
        return found + others
    # The name of another space covers its parameters, so they are not listed one by one. So does
    # that of an option on which spaces may depend.
    can_be_forced = all(other.can_be_forced for other in others)
    listed = [] if created.space != wanted.space else [one for one in others if one.is_asked]
    return [
        replace(one, can_be_forced=can_be_forced) if one.label in covering else one for one in found
    ] + listed


def _other_parameters(
    created: StudyConfig, wanted: StudyConfig, asked: Mapping[str, Any]
) -> list[Difference]:
    absent = {"kind": "", "values": "not searched"}
    found = []
    own = {**asked.get("fixed", {}), **asked.get("ranges", {})}
    for name in dict.fromkeys((*created.parameters, *wanted.parameters)):
        before = created.parameters.get(name, absent)
        after = wanted.parameters.get(name, absent)
        if before == after:
            continue
        is_choice = "choice" in (before["kind"], after["kind"])
        # Optuna accepts new bounds within a study, but neither new choices nor a new scale.
        is_other_kind = before["kind"] != after["kind"] and before != absent and after != absent
        found.append(
            Difference(
                label=name,
                created=_in_words(before),
                now=_in_words(after),
                is_asked=name in own,
                can_be_forced=not (is_other_kind or (is_choice and absent not in (before, after))),
            )
        )
    return found


def _in_words(parameter: Mapping[str, str]) -> str:
    scale = ", log" if parameter["kind"].endswith("log") and " to " in parameter["values"] else ""
    return f"{parameter['values']}{scale}"


def _shown(value: Any) -> str:
    return (value or "''") if isinstance(value, str) else repr(value)


def refuse(name: str, found: Sequence[Difference]) -> None:
    """Refuse a run that differs from its study.

    Raises:
        StudyMismatch: Always; it names both values of each difference and the ways to go on.
    """
    unchangeable = [difference.label for difference in found if not difference.can_be_forced]
    ways = ["name another study with --study_name"]
    if all(difference.is_asked for difference in found):
        ways.insert(0, f"leave {'that' if len(found) == 1 else 'these'} out to go on with it")
    if not unchangeable:
        ways.append("write --force to have the trials that follow differ")
    limit = f" (--force cannot change {', '.join(unchangeable)})" if unchangeable else ""
    raise StudyMismatch(
        f"study '{name}' was created with {'; '.join(map(str, found))}: {', or '.join(ways)}{limit}"
    )


def forced(created: StudyConfig, wanted: StudyConfig, found: Sequence[Difference]) -> StudyConfig:
    """The requested settings, with a record of the changed ones as the study was created."""
    record = dict(created.forced)
    for difference in found:
        label = difference.label.removeprefix("--")
        before = record[label][0] if label in record else difference.created
        record[label] = [before, difference.now]
    changed = {label: pair for label, pair in record.items() if pair[0] != pair[1]}
    return replace(wanted, forced=changed)


def check_name(name: str | None) -> None:
    """Raise `ConfigurationError` for an invalid study name."""
    if name is None:
        return
    is_text = isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME
    if not is_text:
        shown = str(name)[:40].encode("ascii", "backslashreplace").decode()
        raise ConfigurationError(
            f"'{shown}' can be no study's name: 1 to {_LONGEST_NAME} printable characters are "
            "wanted (--study_name)"
        )
