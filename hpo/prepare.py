"""A study as a run asks for it: created or joined, its budget and its queue as they are to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hpo import configurations, settings, study
from hpo.budget import Tickets
from hpo.contract import declared
from hpo.database import connect
from hpo.errors import ConfigurationError, ObjectiveError
from hpo.narrowing import Narrowing, narrowing
from hpo.pruners import make_pruner
from hpo.request import DEFAULTS, RunRequest
from hpo.samplers import make_sampler, resolve
from hpo.settings import StudyConfig
from hpo.storage import open_storage, prepare
from hpo.study import OpenStudy
from objectives import DEFAULT, Objective

DEFAULT_TRIALS = 50


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A study whose budget stands, and the connections to it.

    Attributes:
        smaller_sizes: Of the objective's problem, largest first.
        notes: What the user should know before it starts.
    """

    url: str
    db: sa.Engine
    opened: OpenStudy
    tickets: Tickets
    is_new: bool
    smaller_sizes: Sequence[str] = ()
    notes: Sequence[str] = ()


def prepare_study(url: str, request: RunRequest, *, on_gpu: bool) -> Prepared:
    """Create or load the study that is asked for and bring its budget to its size.

    Raises:
        ConfigurationError: It cannot be.
        StudyMismatch: It was created with something else.
        StorageError: The database cannot be used.
    """
    db = connect(url, application="fleet")
    prepare(db)
    storage = open_storage(url, application="fleet")
    known = study.find(storage, request.study_name) if request.study_name else None
    spec = _absolute(request.objective) or (known.config.objective if known else DEFAULT)
    objective = study.load_objective(spec)
    machine = {
        "size": "full" if on_gpu else "tiny",
        "precision": "fp16" if on_gpu else "fp32",
    }
    wanted = {**DEFAULTS, **machine, **request.asked()}
    name = request.study_name or f"{objective.name}-{wanted['space']}-{wanted['size']}"

    def fresh() -> StudyConfig:
        total = request.n_trials or DEFAULT_TRIALS
        config = _settled(objective, spec, wanted, n_trials=total)
        # A refusal must leave no study behind; the first trial is the default configuration's.
        lacking = len(_to_try(config, objective, request)) - (total - 1)
        if lacking > 0:
            raise _too_few(request, total + lacking)
        return config

    for finding in declared(objective):
        if finding.state == "failed":
            raise ObjectiveError(f"objective '{spec}': {finding.detail}")
    opened, is_new = study.create_or_load(storage, db, name=name, fresh=fresh)
    notes: list[str] = []
    if not is_new:
        opened, notes = _joined(opened, db, objective, spec, request)
        _check_search(opened.config)
    tickets = Tickets(db, opened.uid)
    total = tickets.grow(request.n_trials or tickets.count().total or DEFAULT_TRIALS)
    if request.n_trials is not None and request.n_trials < total:
        notes.append(
            f"the study has {total} trials already; --n_trials {request.n_trials} adds none"
        )
    if request.enqueue:
        notes.append(_enqueue(opened, tickets, objective, request))
    study.note_run(opened, {**asdict(opened.config), **_effective(request), "n_trials": total})
    sizes = list(objective.sizes)
    return Prepared(
        url=url,
        db=db,
        opened=opened,
        tickets=tickets,
        is_new=is_new,
        smaller_sizes=sizes[: sizes.index(opened.config.size)][::-1],
        notes=tuple(notes),
    )


def _absolute(objective: str | None) -> str | None:
    """A file is found again by workers whatever their working folder."""
    if objective is not None and objective.endswith(".py"):
        return str(Path(objective).absolute())
    return objective


def _settled(
    objective: Objective, spec: str, wanted: Mapping[str, Any], *, n_trials: int
) -> StudyConfig:
    """The settings of a new study."""
    _check(objective, wanted)
    space = objective.spaces[wanted["space"]]
    own = narrowing(space, wanted.get("fixed", {}), wanted.get("ranges", {}))
    sampler = resolve(wanted["sampler"], own.apply(space), n_trials=n_trials)
    defaults = {name: option.default for name, option in objective.options.items()}
    whole = {
        **wanted,
        "sampler": sampler,
        "options": {**defaults, **wanted.get("options", {})},
        "fixed": own.fixed,
        "ranges": own.ranges,
    }
    source = study.source_hash(objective)
    config = StudyConfig(
        objective=spec, source=source, **{**whole, **settings.facts(objective, whole)}
    )
    _check_search(config)
    return config


def _check_search(config: StudyConfig) -> None:
    """Refuse a sampler or a pruner that cannot be made here: it could not in a worker either."""
    make_sampler(config.sampler, seed=0)
    make_pruner(config.pruner, epochs=config.epochs)


def _joined(
    opened: OpenStudy, db: sa.Engine, objective: Objective, spec: str, request: RunRequest
) -> tuple[OpenStudy, list[str]]:
    """The study that there is, if it is what is asked for, or is forced to be; and notes."""
    created, asked = opened.config, request.asked()
    _check(objective, {**asdict(created), **asked})
    notes = []
    if study.source_hash(objective) != created.source:
        notes.append(
            f"the objective's file has changed since study '{opened.name}' was created; "
            "its trials may not compare"
        )
        if spec != created.objective:
            asked["objective"] = spec
    wanted = _wanted(created, objective, {**asked, "objective": spec})
    found = settings.differences(created, wanted, asked)
    if found:
        is_possible = all(difference.can_be_forced for difference in found)
        if not (request.force and is_possible):
            settings.refuse(opened.name, found)
        tickets = Tickets(db, opened.uid)
        tickets.sweep()
        if workers := [lease.worker for lease in tickets.live()]:
            raise ConfigurationError(
                f"study '{opened.name}' is being worked on by {', '.join(workers[:4])}, and "
                "--force would change it under them; end that run first"
            )
        wanted = settings.forced(created, wanted, found)
        notes.append(f"from here on: {'; '.join(map(str, found))}")
    _to_try(wanted, objective, request)
    if wanted != created:
        opened = study.change(opened, wanted)
    return opened, notes


def _wanted(created: StudyConfig, objective: Objective, asked: Mapping[str, Any]) -> StudyConfig:
    """The settings that a study has, with what is asked for in their place."""
    space = objective.spaces[asked.get("space", created.space)]
    new = narrowing(space, asked.get("fixed", {}), asked.get("ranges", {}))
    # What is fixed now was perhaps narrowed before, and the other way round.
    kept = Narrowing(
        fixed={name: v for name, v in created.fixed.items() if name not in new.ranges},
        ranges={name: v for name, v in created.ranges.items() if name not in new.fixed},
    )
    whole = {
        **asdict(created),
        **asked,
        "options": {**created.options, **asked.get("options", {})},
        "fixed": {**kept.fixed, **new.fixed},
        "ranges": {name: tuple(v) for name, v in {**kept.ranges, **new.ranges}.items()},
    }
    return replace(created, **{**whole, **settings.facts(objective, whole)})


def _effective(request: RunRequest) -> dict[str, Any]:
    """What a run asks for beside what its study is created with, as plain data."""
    return {
        "study_name": request.study_name,
        "workers": request.workers or "auto",
        "workers_per_gpu": request.workers_per_gpu,
        "gpus": list(request.gpus) or "all",
        "timeout": request.timeout_s,
        "grace": request.grace_s,
        "checkpoint_dir": request.checkpoint_dir and str(request.checkpoint_dir),
        "enqueue": [dict(one) for one in request.enqueue],
        "force": request.force,
    }


def _check(objective: Objective, wanted: Mapping[str, Any]) -> None:
    """Refuse a space, a size or an option that the objective does not have."""
    for what, known in (("space", objective.spaces), ("size", objective.sizes)):
        if wanted[what] not in known:
            raise ConfigurationError(
                f"objective '{objective.name}' has no {what} '{wanted[what]}'; use one of "
                f"{', '.join(known)} (--{what})"
            )
    for name, value in wanted.get("options", {}).items():
        option = objective.options.get(name)
        if option is None:
            raise ConfigurationError(
                f"objective '{objective.name}' has no option '{name}'; it has "
                f"{', '.join(objective.options) or 'none'}"
            )
        if option.choices and value not in option.choices:
            raise ConfigurationError(
                f"--{name} '{value}' is none of {', '.join(option.choices)} of objective "
                f"'{objective.name}'"
            )


def _to_try(config: StudyConfig, objective: Objective, request: RunRequest) -> list[dict[str, Any]]:
    """The configurations that a run wants tried, as values of its study's parameters."""
    space = config.narrowing.apply(objective.spaces[config.space])
    return configurations.checked(request.enqueue, space)


def _too_few(request: RunRequest, needed: int) -> ConfigurationError:
    return ConfigurationError(
        f"{len(request.enqueue)} configurations to try, and fewer trials are left; write "
        f"--n_trials {needed} (--enqueue)"
    )


def _enqueue(opened: OpenStudy, tickets: Tickets, objective: Objective, request: RunRequest) -> str:
    """Have the next trials try the configurations that are asked for; a note of what was done."""
    wanted = _to_try(opened.config, objective, request)
    trials = opened.load().get_trials(deepcopy=False)
    tried = [trial.params for trial in trials]
    waiting = tickets.enqueued()
    new = []
    for one in wanted:
        is_tried = any(one.items() <= params.items() for params in tried)
        if not is_tried and one not in waiting and one not in new:
            new.append(one)
    lacking = tickets.enqueue(new)
    if lacking:
        raise _too_few(request, tickets.count().total + lacking)
    known = len(wanted) - len(new)
    if not new:
        return "nothing new to try: all of them were there already"
    noun = "configuration is" if len(new) == 1 else "configurations are"
    return f"{len(new)} {noun} tried next{f' ({known} were there already)' if known else ''}"
