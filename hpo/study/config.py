"""What a study is created with, and how a run that asks for something else differs from it.

Border: plain data; which study it is, and where it is stored, is `study`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from hpo.errors import StudyMismatch
from hpo.search.narrowing import Narrowing, kind_of, values_of
from hpo.search.pruners import check_pruner
from hpo.search.samplers import check_sampler
from objectives import Objective

# Fields that studies, checkpoints, saved steps and weights keep under another name.
_STORED = {"epochs_per_trial": "epochs"}
# Values of a study that one of these changed would not compare, or Optuna would not take.
_NEVER = ("metric", "direction")
_FACTS = ("metric", "direction", "problem_seed")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a study was created with; inherited by every run and every worker.

    Attributes:
        objective: As `objectives.load` takes it; a file's path is absolute.
        source: Hash of the objective's file, to notice a change.
        seed: Of the search, the initialization and the training draws; not of the problem.
        on_precision_range: What becomes of a configuration that only its precision lost: `prune`,
            or `rerun` once more in a wider one.
        options: The objective's own options.
        fixed: Parameters that are not searched, and their values.
        ranges: Parameters that are searched in less than the space's range: low, high, log.
        parameters: What is searched, by parameter: its kind and its values in words.
        forced: Settings that were changed later, by `--force`: as created, and now.
        revision: How often that was done.
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
        """The configuration as plain data, by the keys that studies and files keep it under."""
        return {_STORED.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> StudyConfig:
        """A configuration that was stored, without fields that this version does not know."""
        names = {_STORED.get(name, name): name for name in cls.__dataclass_fields__}
        return cls(**{names[key]: value for key, value in stored.items() if key in names})


def facts(objective: Objective, config: Mapping[str, Any]) -> dict[str, Any]:
    """What an objective says of a study with these settings, by `StudyConfig`'s names."""
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
    """A setting of a study that is not what it was created with.

    Attributes:
        label: The setting as its user knows it: a flag, or a parameter.
        is_asked: Whether a flag asked for it; else the objective itself has changed.
        can_be_forced: Whether trials with both values can stand in one study.
    """

    label: str
    created: Any
    now: Any
    is_asked: bool
    can_be_forced: bool = True

    def __str__(self) -> str:
        return f"{self.label} {_shown(self.created)} (now {_shown(self.now)})"


def differences(
    created: StudyConfig, wanted: StudyConfig, asked: Mapping[str, Any]
) -> list[Difference]:
    """How the settings that are wanted now differ from what a study was created with."""
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
                can_be_forced=name not in _NEVER,
            )
        )
    for name, value in asked.get("options", {}).items():
        if old["options"].get(name) != value:
            before = old["options"].get(name)
            found.append(Difference(label=f"--{name}", created=before, now=value, is_asked=True))
    others = _other_parameters(created, wanted, asked)
    if created.space == wanted.space:
        return found + others
    # Another space is told by its name alone.
    can_be_forced = all(other.can_be_forced for other in others)
    return [
        replace(one, can_be_forced=can_be_forced) if one.label == "--space" else one
        for one in found
    ]


def _other_parameters(
    created: StudyConfig, wanted: StudyConfig, asked: Mapping[str, Any]
) -> list[Difference]:
    nothing = {"kind": "", "values": "not searched"}
    found = []
    own = {**asked.get("fixed", {}), **asked.get("ranges", {})}
    for name in dict.fromkeys((*created.parameters, *wanted.parameters)):
        before = created.parameters.get(name, nothing)
        after = wanted.parameters.get(name, nothing)
        if before == after:
            continue
        is_choice = "choice" in (before["kind"], after["kind"])
        # Optuna takes other bounds within a study, but neither other choices nor another scale.
        is_other_kind = before["kind"] != after["kind"] and before != nothing and after != nothing
        found.append(
            Difference(
                label=name,
                created=_in_words(before),
                now=_in_words(after),
                is_asked=name in own,
                can_be_forced=not (is_other_kind or (is_choice and nothing not in (before, after))),
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
        StudyMismatch: Both values of each difference are named, and how to go on.
    """
    never = [difference.label for difference in found if not difference.can_be_forced]
    ways = ["name another study with --study_name"]
    if all(difference.is_asked for difference in found):
        ways.insert(0, f"leave {'that' if len(found) == 1 else 'these'} out to go on with it")
    if not never:
        ways.append("write --force to have the trials that follow differ")
    limit = f" (--force cannot change {', '.join(never)})" if never else ""
    raise StudyMismatch(
        f"study '{name}' was created with {'; '.join(map(str, found))}: {', or '.join(ways)}{limit}"
    )


def forced(created: StudyConfig, wanted: StudyConfig, found: Sequence[Difference]) -> StudyConfig:
    """The settings that are wanted, with a record of what a study was created with."""
    record = dict(created.forced)
    for difference in found:
        label = difference.label.removeprefix("--")
        before = record[label][0] if label in record else difference.created
        record[label] = [before, difference.now]
    changed = {label: pair for label, pair in record.items() if pair[0] != pair[1]}
    return replace(wanted, forced=changed)
