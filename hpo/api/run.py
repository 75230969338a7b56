"""The service for notebooks and programs: what the command line does, as functions of data.

    import hpo

    result = hpo.run(objective="mine.py", n_trials=20, workers=2)
    result.best.params
    hpo.open(study="mine-wide-tiny").trials()     # rows; pandas.DataFrame(rows) is a table
    hpo.best(study="mine-wide-tiny").value

Nothing is printed. The storage is the one that is named, else HPO_STORAGE's, else the embedded
server, as on the command line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo import environ
from hpo.database.connection import connect
from hpo.errors import ConfigurationError
from hpo.fleet import fleet
from hpo.fleet.events import Event, RunResult
from hpo.fleet.fleet import FleetConfig
from hpo.launch.local import LocalLauncher
from hpo.machine.slots import find_slots
from hpo.search import configurations
from hpo.study.join import prepare_study
from hpo.study.request import RunRequest
from objectives import Params


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
    **settings: Any,
) -> RunResult:
    """Create or resume a study and run workers until it is done, as `python -m hpo run` does.

    An interruption (KeyboardInterrupt) ends the workers, keeps their trials, and is raised again;
    the same call goes on from there.

    Args:
        objective: A name, `module:attr`, or a file. Workers are processes of their own: what was
            defined in a notebook has to be in a file.
        n_trials: The study's total, over all runs.
        home: The folder of the embedded server, checkpoints and logs; None for HPO_HOME.
        set: Values of parameters that are not to be searched.
        range: Narrower ranges: (low, high) or (low, high, 'log').
        enqueue: A configuration to try next, several of them, or the JSON file that holds them.
        on_event: Called with each of the fleet's events, for example `Progress`.
        settings: Further flags by their names, for example `workers=2` or `timeout=600`; and
            `options`, the objective's own.

    Raises:
        HpoError: Whatever the command line would exit with 1 or 2 for.
    """
    if objective is not None and not isinstance(objective, str | Path):
        raise ConfigurationError(
            f"objective {objective!r} lives in this process, and workers are processes of their "
            "own; write it to a file and give the file's path"
        )
    request = RunRequest(
        objective=None if objective is None else str(objective),
        n_trials=n_trials,
        study_name=study,
        fixed=set or {},
        ranges=range or {},
        enqueue=configurations.given(enqueue),
        **_settings(settings),
    )
    folder = Path(home).absolute() if home is not None else environ.home()
    slots = find_slots(
        visible=environ.visible_gpus(),
        workers=request.workers,
        per_gpu=request.workers_per_gpu,
        gpus=request.gpus,
    )
    db = connect(environ.storage_url(storage, home_folder=folder), application="fleet")
    prepared = prepare_study(db, request, on_gpu=slots[0].device == "cuda")
    config = FleetConfig.below(folder, request, prepared, slots)
    launcher = LocalLauncher(environ.variables())

    def ignore(_: Event) -> None:
        pass

    return fleet.run(prepared, config, launcher, emit=on_event or ignore, stop=threading.Event())


# A flag's name, and where a request has it.
_FLAGS = {
    **{name: name for name in ("epochs_per_trial", "space", "size", "precision", "sampler")},
    **{name: name for name in ("pruner", "on_precision_range", "seed", "force", "options")},
    **{name: name for name in ("workers", "workers_per_gpu", "gpus", "checkpoint_dir")},
    **{name: name for name in ("predictions", "predictions_every")},
    "timeout": "timeout_s",
    "grace": "grace_s",
}


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as a request takes them."""
    unknown = [name for name in given if name not in _FLAGS]
    if unknown:
        raise ConfigurationError(f"hpo.run has no '{unknown[0]}'; it has {', '.join(_FLAGS)}")
    found = {_FLAGS[name]: value for name, value in given.items()}
    if found.get("workers") == "auto":
        del found["workers"]
    if isinstance(found.get("gpus"), str):
        found["gpus"] = found["gpus"].split(",")
    if "checkpoint_dir" in found:
        found["checkpoint_dir"] = Path(found["checkpoint_dir"])
    return found
