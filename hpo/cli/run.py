"""`run`: create or resume a study, run workers until it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.objective_flags import given_options
from hpo.cli.run_flags import RunCommand, run_flags
from hpo.cli.shared import INTERRUPTED, stop_on_signals, workers_of
from hpo.errors import ConfigurationError, HpoError

if TYPE_CHECKING:
    from hpo.study.request import RunRequest
    from hpo.study.study import OpenStudy
    from objectives import Params


@click.command(cls=RunCommand)
@run_flags
@click.pass_context
def run(ctx: click.Context, /, **flags: Any) -> None:
    """Create or resume a study, run workers until it is done, show the best trial.

    The same command after an interruption goes on where it stopped; a larger --n_trials adds
    trials. What a study was created with is inherited; a flag that differs is refused.

    \b
    Examples:
        python -m hpo run --n_trials 50
        python -m hpo run --objective quadratic --n_trials 20 --workers 1
        python -m hpo run --objective mine.py --set width=64 --range lr=1e-4,1e-2,log
        python -m hpo run --config study.toml --export_csv trials.csv
        HPO_STORAGE=postgresql+psycopg2://me:secret@db/hpo python -m hpo run --n_trials 500

    With --objective, --help shows the objective's own flags, too.
    """
    from hpo.display.console import errors, labelled
    from hpo.environ import home, named_storage, storage_url, variables, visible_gpus
    from hpo.search import configurations
    from hpo.study import table

    workers, csv_path = workers_of(flags["workers"]), flags["export_csv"]
    if csv_path is not None:
        table.refuse_unwritable(csv_path, flag="--export_csv")
    enqueue = configurations.read(flags["enqueue"]) if flags["enqueue"] else ()
    is_plain = not (flags["quiet"] or flags["log_json"])
    is_embedded = named_storage(flags["storage"]) is None
    if is_plain and is_embedded:
        errors.print(labelled("storage", f"the embedded PostgreSQL in {home()}"))
    url = storage_url(flags["storage"])

    # Heavy, and so only after the first line, and after what a wrong storage is told.
    from hpo.database.connection import connect, mask
    from hpo.machine.slots import find_slots

    db = connect(url, application="fleet")
    if is_plain and not is_embedded:
        errors.print(labelled("storage", mask(url)))
    request = _request(ctx, flags, enqueue=enqueue, workers=workers)
    slots = find_slots(
        visible=visible_gpus(),
        workers=request.workers,
        per_gpu=request.workers_per_gpu,
        gpus=request.gpus,
    )

    from hpo.display.run import Display, Level
    from hpo.fleet import fleet
    from hpo.launch.local import LocalLauncher
    from hpo.study.join import prepare_study

    prepared = prepare_study(db, request, on_gpu=slots[0].device == "cuda")
    config = fleet.FleetConfig.below(home(), request, prepared, slots)
    shown = Display(prepared, config, Level.of(flags))
    shown.begin(asked=request.asked())
    stop = stop_on_signals()
    try:
        with shown:
            result = fleet.run(
                prepared, config, LocalLauncher(variables()), emit=shown.show, stop=stop
            )
    except HpoError:
        if csv_path is not None:
            with suppress(HpoError):
                _export(csv_path, prepared.opened)
        raise
    if flags["as_json"]:
        shown.note_end(result)
        click.echo(json.dumps(result.flat(), indent=2))
    else:
        shown.end(result, is_embedded=is_embedded)
    if csv_path is not None:
        # After the result, which a full disk must not hide.
        _export(csv_path, prepared.opened)
        shown.say(f"the trials are in {csv_path}")
    if result.is_interrupted:
        ctx.exit(INTERRUPTED)


def _request(
    ctx: click.Context, flags: Mapping[str, Any], *, enqueue: Sequence[Params], workers: int | None
) -> RunRequest:
    """The flags as what is asked for."""
    from hpo.study.request import RunRequest

    same = (
        *("n_trials", "objective", "study_name", "epochs_per_trial", "space", "size", "precision"),
        *("sampler", "pruner", "on_precision_range", "seed", "force", "workers_per_gpu"),
        *("checkpoint_dir", "predictions", "predictions_every"),
    )
    return RunRequest(
        **{name: flags[name] for name in same},
        options=given_options(ctx, flags),
        fixed=_pairs(flags["fixed"], "--set"),
        ranges=_pairs(flags["ranges"], "--range"),
        enqueue=enqueue,
        workers=workers,
        gpus=[name.strip() for name in (flags["gpus"] or "").split(",") if name.strip()],
        timeout_s=flags["timeout"],
        grace_s=flags["grace"],
    )


def _export(path: Path, opened: OpenStudy) -> None:
    from hpo.study import table

    table.write(path, table.csv_text(table.trial_rows(opened)), flag="--export_csv")


def _pairs(given: Sequence[str], flag: str) -> dict[str, str]:
    """'name=value' of a repeated flag, by name; the last one of a name counts."""
    pairs = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            form = "NAME=VALUE" if flag == "--set" else "NAME=LOW,HIGH[,log]"
            raise ConfigurationError(f"{flag} '{one}' is not of the form {form}")
        pairs[name.strip()] = value.strip()
    return pairs
