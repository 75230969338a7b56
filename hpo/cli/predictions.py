"""Commands on what is kept: `predictions` shows some, `gc` removes what is old or left behind."""

from __future__ import annotations

import json

import click

from hpo.cli.shared import Command, Whole, json_option, open_study, storage_option, study_option
from hpo.errors import ConfigurationError


@click.command(cls=Command)
@click.argument("trial", type=Whole(min=0), metavar="TRIAL")
@study_option
@storage_option
@click.option("--sample", type=Whole(min=0), multiple=True, metavar="I", help="these samples only")
@click.option("--csv", "as_csv", is_flag=True, help="as CSV, a row a prediction")
@json_option
def predictions(
    trial: int,
    study_name: str | None,
    storage: str | None,
    sample: tuple[int, ...],
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show what a trial's networks made of some validation samples, epoch after epoch.

    Tables of figures are shown below the true ones, grids as coloured cells beside the wanted one.
    How many samples are kept, and how often, is said to 'run' (--predictions,
    --predictions_every).

    \b
    Examples:
        python -m hpo predictions 17
        python -m hpo predictions 17 --sample 0 --csv > sample.csv
    """
    from hpo.api.study import Study
    from hpo.display.predictions import print_predictions
    from hpo.study import table

    if as_csv and as_json:
        raise ConfigurationError("--csv and --json exclude each other; write one of them")
    found = Study(*open_study(study_name, storage)).predictions(trial)
    known = {row["sample"] for row in found}
    lacking = sorted(set(sample) - known)
    if lacking:
        raise ConfigurationError(
            f"no sample {lacking[0]} of trial {trial} is kept; there are "
            f"{', '.join(map(str, sorted(known)))} (--sample)"
        )
    rows = [row for row in found if not sample or row["sample"] in sample]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif as_csv:
        parts = ("input", "target", "prediction")
        flat = [{**row, **{name: json.dumps(row[name]) for name in parts}} for row in rows]
        click.echo(table.csv_of(flat), nl=False)
    else:
        print_predictions(rows)


@click.command(cls=Command)
@storage_option
@click.option(
    "--older_than",
    type=float,
    default=30.0,
    metavar="DAYS",
    help="remove predictions made longer ago (default: 30)",
)
@click.option(
    "--larger_than",
    type=float,
    default=1000.0,
    metavar="MB",
    help="and the oldest of what is more than this (default: 1000)",
)
@click.option("--dry_run", is_flag=True, help="count only, and remove nothing")
@json_option
def gc(
    storage: str | None, older_than: float, larger_than: float, dry_run: bool, as_json: bool
) -> None:
    """Remove old predictions from the storage, and what deleted studies left behind.

    Trials, metrics, divergences and checkpoints of studies that exist stay. Of studies that were
    deleted in the dashboard, or by another host, all rows go, whatever their age, and the
    checkpoints and logs below HPO_HOME here. Files in the storage that no trial refers to go after
    an hour.

    \b
    Examples:
        python -m hpo gc --dry_run
        python -m hpo gc --older_than 7 --larger_than 200
    """
    from hpo.database.connection import connect
    from hpo.database.migrations import create_tables
    from hpo.database.retention import Limits, collect
    from hpo.display.delete import print_leftovers
    from hpo.display.predictions import print_collected
    from hpo.environ import home, storage_url
    from hpo.study import identity
    from hpo.study.deletion import Folders
    from hpo.study.leftovers import clear

    limits = Limits(days=older_than, megabytes=larger_than)
    db = connect(storage_url(storage), needs_writes=True)
    create_tables(db)
    found = collect(db, limits, living=identity.living(), dry_run=dry_run)
    folders = Folders(checkpoints=home() / "checkpoints", logs=home() / "logs")
    left = clear(db, folders, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({**found.flat(), "left_behind": left.flat()}, indent=2))
    else:
        print_collected(found, limits, dry_run=dry_run)
        print_leftovers(left, dry_run=dry_run)
