"""`hpo.train`: the command `python -m hpo train` as a function that returns data.

    import hpo

    hpo.train(study="mine-wide-tiny", epochs=200).file      # the weights of the best seed
    hpo.train("best.json", seeds=5, out="final").mean

Nothing is printed. In `hpo.refit`, `recipe` resolves the configuration and `crew` trains it.
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
from hpo.refit.recipe import Recipe
from hpo.refit.request import TrainRequest
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

    On an interruption (KeyboardInterrupt) every seed writes its checkpoint, and the exception is
    raised again; the same call goes on from there.

    Args:
        file: File of a configuration, as `best --save` writes it; None for a study's trial.
        study: Name of the study; None for the only one in the storage.
        trial: Number of the trial; None for the best one.
        storage: URL of a PostgreSQL database; None for HPO_STORAGE, else the embedded server.
        home: Folder of the embedded server; None for HPO_HOME.
        epochs: Epochs of each seed, over which the learning rate falls to 0.
        seeds: Number of seeds; a larger number in a later call adds some.
        precision: Precision of the forward pass; `auto` for the trial's own.
        ema: Decay of the averaged weights; 0 for none.
        objective: Location of the objective here; None for the study's or the file's.
        size: Size of the problem; None for the study's or the file's.
        space: Search space of a `file` without settings.
        options: Values of the objective's own options that replace the study's.
        device: The torch device; None for the GPUs, else the CPU.
        workers: Seeds that train at once; None for one per GPU, else one per usable core.
        out: Folder of the results; None for one in `trained`.
        force: Start over if the folder holds a training, this one or another.
        on_event: Called with each event, for example `hpo.refit.events.SeedEnded`.

    Raises:
        HpoError: An error for which the command line would exit with 1 or 2.
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
    """Resolve a request to the recipe of a training and its execution settings.

    Raises:
        ConfigurationError: The request contradicts itself, or does not fit the study, the file or
            this machine.
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
        workers=workers,
        force=force,
    )
    return found, config
