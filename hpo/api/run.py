"""`hpo.run`: the command `python -m hpo run` as a function that returns data.

    import hpo

    result = hpo.run(objective="mine.py", n_trials=20, workers=2)
    result.best.params

Nothing is printed. The storage is the `storage` argument, else HPO_STORAGE, else the embedded
server, as on the command line, which calls this function.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo import environ
from hpo.errors import ConfigurationError
from hpo.fleet.config import FleetConfig
from hpo.fleet.events import Connected, Event, RunResult, Starting, Waiting
from hpo.fleet.first import FirstWorker
from hpo.launch.choice import engine_of
from hpo.launch.engine import Engine, local_engine
from hpo.launch.local import LocalLauncher
from hpo.machine.slots import cpu_slots
from hpo.study.place import Place
from hpo.study.request import FLAGS, RunRequest
from objectives import Params, is_importing

if TYPE_CHECKING:
    from hpo.fleet.metrics import Metrics
    from hpo.study.join import Prepared

# These flags are named parameters of `run`; all others are its further settings.
_NAMED = ("objective", "n_trials", "study_name", "set", "range", "enqueue")
SETTINGS = [flag for flag in FLAGS if flag.name not in _NAMED]


def run(
    objective: str | Path | None = None,
    *,
    n_trials: int | None = None,
    study: str | None = None,
    storage: str | None = None,
    home: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    range: Mapping[str, Any] | None = None,
    enqueue: Params | Sequence[Params] | str | Path = (),
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
    **settings: Any,
) -> RunResult:
    """Create or resume a study and run workers until it is done, as `python -m hpo run` does.

    An interruption (KeyboardInterrupt) ends the workers, keeps their trials, and is raised again;
    the same call goes on from there.

    Args:
        objective: A name, `module:attr`, or a file. Workers are separate processes, so an
            objective from a notebook must be written to a file.
        n_trials: Total number of trials of the study, over all runs.
        study: Name of the study; None for one made from objective, space and size, and
            from options that name it.
        storage: URL of a PostgreSQL database; None for HPO_STORAGE, else the embedded server.
        home: Folder of the embedded server, checkpoints and logs; None for HPO_HOME.
        set: Fixed values of parameters, which are then not searched.
        range: Narrower ranges of parameters: (low, high) or (low, high, 'log').
        enqueue: A configuration to try next, several of them, or the JSON file that holds them.
        on_event: Called with each event of the run, for example `hpo.fleet.events.Progress`.
        stop: An event; setting it ends the run, as Ctrl-C does on the command line. It is cleared
            when the workers are asked to end, and set again it ends them at once.
        settings: Further flags by their names, for example `workers=2` or `timeout=600`;
            `options`, a mapping of the objective's own options; and with `launcher="slurm"`
            `slurm`, a mapping of sbatch's, for example `{"time": "4:00:00"}`.

    Raises:
        HpoError: An error for which the command line would exit with 1 or 2.
    """
    if is_importing():
        raise ConfigurationError(
            "hpo.run was called while an objective's file was imported, which every worker does; "
            "call it below 'if __name__ == \"__main__\":'"
        )
    request = _requested(
        objective,
        {
            **{"n_trials": n_trials, "study_name": study, "set": set or {}, "range": range or {}},
            "enqueue": _given(enqueue),
        },
        settings,
    )
    folder = Path(home).absolute() if home is not None else environ.home()
    emit, stop = on_event or _ignore, threading.Event() if stop is None else stop
    place = Place.of(request.checkpoint_dir)
    # A port that is taken ends this run before anything is started or created.
    with _metrics(request) as metrics:
        opened = engine_of(request, say=lambda what: emit(Waiting(what=what)), stop=stop)
        with closing(opened) as engine:
            if engine.is_local and place.url is not None:
                from hpo.study import objects

                objects.require(place.url)
            return _run_on(engine, request, storage, folder, emit=emit, stop=stop, metrics=metrics)


def _run_on(
    engine: Engine,
    request: RunRequest,
    storage: str | None,
    folder: Path,
    *,
    emit: Callable[[Event], None],
    stop: threading.Event,
    metrics: Metrics | None,
) -> RunResult:
    """Run a request on an engine.

    Args:
        folder: Of the embedded server, checkpoints and logs.
        metrics: What serves the study's metrics; None for none.
    """
    # Wherever the workers run, the first look at the objective is taken on this host.
    here = engine if engine.is_local else local_engine(cpu_slots(1))

    def below(uid: str, of: Engine = engine) -> FleetConfig:
        return FleetConfig.below(folder, request, uid, of)

    named = environ.named_storage(storage)
    # A named one that cannot work ends this run, and so the worker, before it is used.
    url = named or environ.storage_url(home_folder=folder)
    engine.refuse_unreachable(url)
    first_worker = FirstWorker(
        LocalLauncher(environ.variables()),
        partial(below, of=here),
        storage=url,
        emit=emit,
        stop=stop,
        timeout_s=request.timeout_s,
        goes_on=engine.is_local and not request.fresh_process,
    )
    with first_worker as first:
        # These imports take half a second, in which the worker imports torch.
        from hpo.database.connection import connect, mask
        from hpo.database.patience import on_outage, reset
        from hpo.embedded.server import revive

        try:
            on_outage(partial(revive, folder) if named is None else None)
            db = connect(url, application="fleet", needs_writes=True)
            shown = mask(db.url)
            emit(Connected(storage=shown))

            # So a database that does not answer is reported before them.
            from hpo.fleet.run import run as run_fleet
            from hpo.study.join import prepare_study

            prepared = prepare_study(
                db, request, on_gpu=engine.on_gpu, look=first.look, find=first.find
            )
            config = below(prepared.opened.uid)
            if metrics is not None:
                from hpo.tickets.figures import read_figures

                metrics.follow(partial(read_figures, prepared.db, prepared.opened.uid))
            emit(_starting(prepared, config, request, storage=shown))
            return run_fleet(prepared, config, engine.launcher, emit=emit, stop=stop, first=first)
        finally:
            reset()


def _metrics(request: RunRequest) -> AbstractContextManager[Metrics | None]:
    """The metrics that a run serves, if it does; nothing of them is imported if not."""
    if request.metrics_port is None:
        return nullcontext()
    from hpo.fleet.metrics import Metrics

    return Metrics(request.metrics_host, request.metrics_port)


def _given(enqueue: Params | Sequence[Params] | str | Path) -> Sequence[Params]:
    """The configurations to try next; what reads them is not imported for none."""
    if enqueue == ():
        return ()
    from hpo.search import configurations

    return configurations.given(enqueue)


def _requested(objective: Any, named: Mapping[str, Any], settings: Mapping[str, Any]) -> RunRequest:
    """Make a request of the parameters and the further settings of `run`."""
    if objective is not None and not isinstance(objective, str | Path):
        raise ConfigurationError(
            f"objective {objective!r} lives in this process, and workers are processes of their "
            "own; write it to a file and give the file's path"
        )
    known = [*(flag.name for flag in SETTINGS), "options", "slurm"]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ConfigurationError(f"hpo.run has no '{unknown[0]}'; it has {', '.join(known)}")
    spec = None if objective is None else str(objective)
    return RunRequest.of({"objective": spec, **named, **settings})


def _starting(
    prepared: Prepared, config: FleetConfig, request: RunRequest, *, storage: str
) -> Starting:
    """The event of a study that is ready, without the password that `prepared` holds."""
    from hpo.database.limits import shortage

    budget = prepared.tickets.count()
    # More workers than trials are not started.
    workers = min(len(config.slots), budget.open + budget.leased)
    short = shortage(prepared.db, workers) if workers else None
    return Starting(
        opened=prepared.opened,
        budget=budget,
        slots=config.slots,
        checkpoints=config.checkpoints,
        logs=config.logs,
        is_new=prepared.is_new,
        storage=storage,
        asked=request.asked(),
        smaller_sizes=prepared.smaller_sizes,
        chosen=prepared.chosen,
        notes=[*prepared.notes, *([short] if short else [])],
    )


def _ignore(_: Event) -> None:
    """Discard an event of a run."""
