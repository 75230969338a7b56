"""`hpo.train`: what `python -m hpo train` does, as a function that returns data.

    import hpo

    hpo.train(study="mine-wide-tiny", epochs=200).file      # the weights of the best seed
    hpo.train("best.json", seeds=5, out="final").mean

Nothing is printed. `hpo.refit` resolves what is trained (`recipe`) and trains it (`crew`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from hpo import environ
from hpo.database.connection import connect
from hpo.errors import ConfigurationError
from hpo.launch.local import LocalLauncher
from hpo.machine.slots import slots_on
from hpo.refit import crew, recipe
from hpo.refit.crew import TrainConfig
from hpo.refit.events import TrainEvent
from hpo.refit.recipe import Recipe, TrainRequest
from hpo.refit.results import TrainingResult
from hpo.study.study import open_study


def train(
    file: str | Path | None = None,
    *,
    study: str | None = None,
    trial: int | None = None,
    storage: str | None = None,
    home: str | Path | None = None,
    epochs: int = 100,
    seeds: int = 3,
    precision: str = "auto",
    ema: float = 0.999,
    objective: str | Path | None = None,
    size: str | None = None,
    space: str | None = None,
    options: Mapping[str, str] | None = None,
    device: str | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    force: bool = False,
    on_event: Callable[[TrainEvent], None] | None = None,
) -> TrainingResult:
    """Train a configuration at full length over several seeds, as `python -m hpo train` does.

    An interruption (KeyboardInterrupt) has every seed write its checkpoint, and is raised again;
    the same call goes on from there.

    Args:
        file: A configuration's file, as `best --save` writes it; None for a study's trial.
        trial: Its number; None for the best one.
        home: The folder of the embedded server; None for HPO_HOME.
        ema: The decay of the averaged weights; 0 for none.
        options: The objective's own, where they are to be others than the study's.
        out: The folder of the results; None for one below `trained`.
        on_event: Called with each event, for example `hpo.refit.events.SeedEnded`.

    Raises:
        HpoError: Whatever the command line would exit with 1 or 2 for.
    """
    request = TrainRequest(
        objective=None if objective is None else str(objective),
        size=size,
        space=space,
        options=options or {},
        epochs=epochs,
        seeds=seeds,
        precision=precision,
        ema_decay=ema,
    )
    found, config = resolve(
        request,
        file=None if file is None else Path(file),
        study=study,
        trial=trial,
        storage=storage,
        home=None if home is None else Path(home).absolute(),
        device=device,
        workers=workers,
        out=None if out is None else Path(out),
        force=force,
    )

    def ignore(_: TrainEvent) -> None:
        pass

    launcher, stop = LocalLauncher(environ.variables()), threading.Event()
    return crew.train(found, config, launcher, emit=on_event or ignore, stop=stop)


def resolve(
    request: TrainRequest,
    *,
    file: Path | None,
    study: str | None,
    trial: int | None,
    storage: str | None,
    home: Path | None = None,
    device: str | None,
    workers: int | None,
    out: Path | None,
    force: bool,
) -> tuple[Recipe, TrainConfig]:
    """What a training comes down to: what is trained, and how and where.

    Raises:
        ConfigurationError: It cannot be.
        StorageError: The database of the study cannot be used.
    """
    both = [name for name, v in (("trial", trial), ("study_name", study)) if v is not None]
    if file is not None and both:
        raise ConfigurationError(
            f"the file '{file}' and --{both[0]} name two configurations; leave one of them out"
        )
    slots = slots_on(device, workers, visible=environ.visible_gpus())
    on_gpu = slots[0].device.startswith("cuda")
    if file is not None:
        found = recipe.of_file(file, request, on_gpu=on_gpu)
    else:
        db = connect(environ.storage_url(storage, home_folder=home))
        found = recipe.of_study(open_study(db, study), trial, request, on_gpu=on_gpu)
    config = TrainConfig(
        folder=out or crew.default_folder(found, file),
        slots=slots,
        force=force,
    )
    return found, config
