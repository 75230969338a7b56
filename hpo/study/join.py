"""Create or join the study that a run requests; extend its budget and its queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from hpo import trust
from hpo.database import ended
from hpo.database.connection import locked
from hpo.database.migrations import create_tables
from hpo.database.storage import open_storage
from hpo.errors import ConfigurationError, ObjectiveError
from hpo.machine.version import code_version
from hpo.search import configurations
from hpo.search.plugins import is_plugin
from hpo.study import compare, study
from hpo.study.chosen import chosen
from hpo.study.config import StudyConfig, check_name, forced
from hpo.study.declared import declared
from hpo.study.naming import usual_name
from hpo.study.objective import faulty, named_objective, source_hash
from hpo.study.place import Place
from hpo.study.request import DEFAULT_TRIALS, DEFAULTS, FLAGS, RunRequest, usual
from hpo.study.resolve import absolute, settled
from hpo.study.spaces import bound_to
from hpo.study.study import OpenStudy
from hpo.tickets.budget import Tickets
from hpo.tickets.crew import Crew
from hpo.tickets.queue import found_in
from hpo.tickets.spent import Spent
from objectives import DEFAULT, Objective, Params


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A study with its final budget, ready for workers, and the connections to it.

    Attributes:
        objective: Name, module or file of the objective on this host; others may differ.
        smaller_sizes: Smaller sizes of the objective's problem, largest first.
        chosen: The options that may be left to the objective: their values, and why.
        notes: Remarks for the user before the start.
    """

    # The URL holds the password.
    url: str = field(repr=False)
    db: sa.Engine
    opened: OpenStudy
    tickets: Tickets
    objective: str
    is_new: bool
    smaller_sizes: Sequence[str] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


Look = Callable[[StudyConfig, str, str | None], object]


class Find(Protocol):
    """Finds an objective as `named_objective` does, in this process or in another."""

    def __call__(self, given: str | None, stored: str, *, what: str) -> Objective: ...


def prepare_study(
    db: sa.Engine,
    request: RunRequest,
    *,
    on_gpu: bool,
    look: Look | None = None,
    find: Find = named_objective,
) -> Prepared:
    """Create or load the requested study and extend its budget.

    Args:
        look: Called with the settings, the objective and the study's uid, None of a new one,
            before anything is created or changed, if this objective was not trained so before. It
            raises `ObjectiveError` if that cannot be. It may take long, so the study is not locked.
        find: Finds the objective; a run's own process leaves its import to the first worker.

    Raises:
        ConfigurationError: The request is impossible; nothing was changed.
        ObjectiveError: The objective cannot be imported or violates the contract.
        StudyMismatch: The study was created with another configuration.
        StorageError: The database cannot be used.
    """
    check_name(request.study_name)
    create_tables(db)
    url = db.url.render_as_string(hide_password=False)
    storage = open_storage(db)
    known = study.find(storage, request.study_name) if request.study_name else None
    spec = absolute(request.objective) or (known.config.objective if known else DEFAULT)
    _name_plugins(request)
    given = None if request.objective is None else spec
    # Our sources take 10 ms, in which the first worker imports torch.
    code_version(None)
    objective = find(given, spec, what=f"study '{request.study_name}'")
    faults = [finding.detail for finding in declared(objective) if finding.state == "failed"]
    if faults:
        raise ObjectiveError(faulty(spec, faults))
    wanted = {**DEFAULTS, **usual(on_gpu=on_gpu), **request.asked()}
    name = request.study_name or usual_name(storage, objective, wanted)
    check_name(name)
    notes: list[str] = []
    opened = study.find(storage, name)
    created = _created(objective, spec, wanted, request) if opened is None else None
    compared = None if opened is None else compare.compared(opened, objective, spec, request)
    settings = created if opened is None else opened.config
    assert settings is not None
    # A hook of the objective is called here, where its error leaves no study behind.
    why = chosen(objective, settings, request.options, is_new=opened is None)
    version = code_version(source_hash(objective))
    if opened is not None and opened.copy_of is None and not request.allow_mixed:
        # Nothing is changed for a run whose workers would be refused.
        Crew(db, opened.uid).refuse_other(version)
    if look is not None and created is not None:
        look(created, spec, None)
    elif look is not None and opened is not None and compared is not None and compared.is_other:
        left = Tickets(db, opened.uid).count()
        if opened.copy_of or max(left.total, request.n_trials or 0) > left.ended:
            look(compared.wanted, spec, None if opened.copy_of else opened.uid)
    # Under this lock simultaneous runs create one study, and none undoes another's changes.
    with locked(db, f"hpo study {name}"):
        opened = study.find(storage, name)
        is_new = opened is None
        if opened is None:
            created = created or _created(objective, spec, wanted, request)
            opened = study.create(storage, name, created)
        else:
            copy_of = opened.copy_of
            opened, notes = _joined(study.claimed(opened), db, objective, spec, request, compared)
            if copy_of is not None:
                notes.insert(
                    0,
                    f"'{name}' is a copy of study '{copy_of}': it goes on with a budget of its own",
                )
    Crew(db, opened.uid).claim(version, is_mixed=request.allow_mixed)
    tickets = Tickets(db, opened.uid)
    total = tickets.grow(request.n_trials or tickets.count().total or DEFAULT_TRIALS)
    tickets.limit(max_hours=request.max_hours, max_gpu_hours=request.max_gpu_hours)
    if request.n_trials is not None and request.n_trials < total:
        notes.append(
            f"the study has {total} trials already; --n_trials {request.n_trials} adds none"
        )
    if request.allow_repeats:
        notes += filter(
            None, [compare.refuse_repeats(opened.config, objective, request, total=total)]
        )
    if request.enqueue:
        notes.append(_enqueue(opened, tickets, objective, request))
    spent = tickets.spent()
    study.note_run(opened, _effective(request, opened, spent, total=total))
    sizes = list(objective.sizes)
    return Prepared(
        url=url,
        db=db,
        opened=opened,
        tickets=tickets,
        objective=spec,
        is_new=is_new,
        smaller_sizes=sizes[: sizes.index(opened.config.size)][::-1],
        chosen=why,
        notes=tuple(notes),
    )


def _name_plugins(request: RunRequest) -> None:
    """Allow the user's own sampler and pruner that a run names on this host."""
    if request.sampler is not None and is_plugin(request.sampler):
        trust.name("sampler", request.sampler)
    if request.pruner is not None and is_plugin(request.pruner):
        trust.name("pruner", request.pruner)


def _created(
    objective: Objective, spec: str, wanted: Mapping[str, Any], request: RunRequest
) -> StudyConfig:
    """The configuration of a new study; refuse more enqueued configurations than trials."""
    total = request.n_trials or DEFAULT_TRIALS
    config = settled(objective, spec, wanted, n_trials=total)
    compare.refuse_repeats(config, objective, request, total=total)
    # The first trial tries the default configuration and takes no enqueued one.
    lacking = len(_to_try(config, objective, request)) - (total - 1)
    if lacking > 0:
        raise _too_few(request, total + lacking)
    return config


def _joined(
    opened: OpenStudy,
    db: sa.Engine,
    objective: Objective,
    spec: str,
    request: RunRequest,
    compared: compare.Compared | None,
) -> tuple[OpenStudy, list[str]]:
    """Join an existing study, changed if --force allows it; return it with notes for the user.

    Args:
        compared: The request compared with the study as it was found; its configuration may have
            changed since.

    Raises:
        StudyMismatch: The request differs from the study, without --force or beyond its reach.
        ConfigurationError: The request is impossible, or workers hold a study to be changed.
    """
    if compared is None or compared.created != opened.config:
        compared = compare.compared(opened, objective, spec, request)
    wanted, found, notes = compared.wanted, compared.found, list(compared.notes)
    tickets = Tickets(db, opened.uid)
    if (request.n_trials or 0) > tickets.count().total:
        compare.refuse_repeats(wanted, objective, request, total=request.n_trials or 0)
    _refuse_too_many(tickets, opened, _to_try(wanted, objective, request), request)
    if found:
        with tickets.held_still() as leases:
            if leases:
                names = ", ".join(lease.worker for lease in leases[:4])
                raise ConfigurationError(
                    f"study '{opened.name}' is being worked on by {names}, and --force would "
                    "change it under them; end that run first"
                )
            opened = study.change(opened, forced(compared.created, wanted, found))
        notes.append(f"from here on: {'; '.join(map(str, found))}")
    return opened, notes


def _refuse_too_many(
    tickets: Tickets,
    opened: OpenStudy,
    configurations: Sequence[Params],
    request: RunRequest,
) -> None:
    """Refuse more new configurations than the study will have free trials."""
    if configurations:
        total = tickets.count().total
        grown = max(0, (request.n_trials or 0) - total)
        new = tickets.queue.untried(configurations, _tried(opened, configurations))
        lacking = len(new) - tickets.queue.free() - grown
        if lacking > 0:
            raise _too_few(request, total + grown + lacking)


def _effective(
    request: RunRequest, opened: OpenStudy, spent: Spent, *, total: int
) -> dict[str, Any]:
    """The effective configuration of a run as plain data, keyed by flag."""
    config = opened.config
    values = {
        one.field: getattr(config if one.is_of_study else request, one.field) for one in FLAGS
    }
    samples, every = request.recording.flags()
    values |= {
        "study_name": opened.name,
        "n_trials": total,
        # Infinity, which removes a limit, is no JSON.
        "max_hours": spent.max_hours,
        "max_gpu_hours": spent.max_gpu_hours,
        "objective": config.objective,
        "fixed": dict(config.fixed),
        "ranges": {name: list(bounds) for name, bounds in config.ranges.items()},
        "enqueue": [dict(one) for one in request.enqueue],
        "workers": request.workers or "auto",
        "gpus": list(request.gpus) or "all",
        "runtime_env": None if request.runtime_env is None else str(request.runtime_env),
        "checkpoint_dir": Place.of(request.checkpoint_dir).stored(),
        "predictions": samples,
        "predictions_every": every,
    }
    return {**{flag.name: values[flag.field] for flag in FLAGS}, **config.options}


def _to_try(config: StudyConfig, objective: Objective, request: RunRequest) -> list[dict[str, Any]]:
    """The enqueued configurations, checked against the study's search space."""
    if not request.enqueue:
        return []
    objective = bound_to(objective, config.options)
    space = config.narrowing.apply(objective.spaces[config.space])
    return configurations.checked(request.enqueue, space)


def _too_few(request: RunRequest, needed: int) -> ConfigurationError:
    return ConfigurationError(
        f"{len(request.enqueue)} configurations to try, and fewer trials are left; write "
        f"--n_trials {needed} (--enqueue)"
    )


def _tried(opened: OpenStudy, configurations: Sequence[Params]) -> Sequence[Params]:
    """The configurations that trials have tried."""
    if not configurations:
        return ()
    return ended.read(
        opened.storage.engine,
        opened.study_id,
        lambda found: found_in(configurations, found.params()),
    )


def _enqueue(opened: OpenStudy, tickets: Tickets, objective: Objective, request: RunRequest) -> str:
    """Assign the enqueued configurations to the next trials; return a note for the user."""
    wanted = _to_try(opened.config, objective, request)
    new, lacking = tickets.queue.enqueue(wanted, _tried(opened, wanted))
    if lacking:
        raise _too_few(request, tickets.count().total + lacking)
    if not new:
        return "nothing new to try: all of them were there already"
    known = f" ({len(wanted) - new} were there already)" if new < len(wanted) else ""
    return f"{new} configuration{' is' if new == 1 else 's are'} tried next{known}"
