"""Commands that read studies: `status`, `studies`, `best`."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpo.cli.shared import Command, json_option, open_study, storage_option, study_option

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hpo.study.study import OpenStudy


# A watched study is read this often; its workers' heartbeats come every five seconds.
_WATCH_S = 2.0
_AGES = r" \(last beat \d+ s ago\)|\"(silent|held)_s\": [\d.]+"


@click.command(cls=Command)
@study_option
@storage_option
@click.option("--watch", is_flag=True, help="again every two seconds, until the study is done")
@click.option(
    "--export_csv",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="also write all trials as a table",
)
@json_option
def status(
    study_name: str | None,
    storage: str | None,
    watch: bool,
    export_csv: Path | None,
    as_json: bool,
) -> None:
    """Show how a study stands: trials by state and prune reason, workers, the best so far.

    \b
    Examples:
        python -m hpo status --watch
        python -m hpo status --json
    """
    from hpo.display.study import print_status
    from hpo.files import refuse_unwritable, write
    from hpo.study import table
    from hpo.study.status import status as stand

    if export_csv is not None:
        refuse_unwritable(export_csv, flag="--export_csv")
    opened, db = open_study(study_name, storage)
    if export_csv is not None:
        write(export_csv, table.trials_csv(opened), flag="--export_csv")
    if watch:
        _watch(opened, db, as_json=as_json)
        return
    found = stand(opened, db)
    if as_json:
        click.echo(json.dumps(found.flat(), indent=2))
    else:
        print_status(found)


def _watch(opened: OpenStudy, db: sa.Engine, *, as_json: bool) -> None:
    """Show a study until it is done: on a terminal in place, else after each change."""
    import threading

    from rich.live import Live
    from rich.text import Text

    from hpo.display.console import results
    from hpo.display.study import status_lines
    from hpo.study.status import status as stand
    from hpo.tickets.budget import Tickets

    never = threading.Event()
    is_live = results.is_terminal and not as_json
    shown = None
    with (
        Live(console=results, auto_refresh=False) if is_live else nullcontext() as live,
        Tickets(db, opened.uid).notices() as notices,
    ):
        while True:
            notices.listen()
            found = stand(opened, db)
            text = json.dumps(found.flat()) if as_json else "\n".join(status_lines(found))
            if live is not None:
                live.update(Text(text), refresh=True)
            # Ages change at each reading, so they are left out of the comparison.
            elif (news := re.sub(_AGES, "", text)) != shown:
                shown = news
                click.echo(text if as_json else f"{text}\n")
            if found.budget.ended == found.budget.total:
                return
            notices.wait(_WATCH_S, never)


@click.command(cls=Command)
@storage_option
@json_option
def studies(storage: str | None, as_json: bool) -> None:
    """List the studies of the storage, the one that started last first.

    \b
    Example:
        python -m hpo studies
    """
    from hpo.database.connection import connect
    from hpo.database.migrations import create_tables
    from hpo.database.storage import open_storage
    from hpo.display.study import print_overview
    from hpo.environ import storage_url
    from hpo.study.overview import overview

    db = connect(storage_url(storage))
    create_tables(db)
    found = overview(open_storage(db), db)
    if as_json:
        click.echo(json.dumps([line.flat() for line in found], indent=2))
    elif found:
        print_overview(found)
    else:
        click.echo("no study yet; 'python -m hpo --n_trials 50' creates one", err=True)


@click.command(cls=Command)
@study_option
@storage_option
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="also write it as a JSON file, which 'train FILE' and 'run --enqueue FILE' take",
)
@json_option
def best(study_name: str | None, storage: str | None, save: Path | None, as_json: bool) -> None:
    """Show the best trial of a study and its parameters.

    \b
    Examples:
        python -m hpo best --json
        python -m hpo best --save best.json && python -m hpo train best.json
        python -m hpo best --save best.json && python -m hpo run --study_name b --enqueue best.json
    """
    from hpo.api.study import best_of
    from hpo.display.study import print_figures, print_trial
    from hpo.files import refuse_unwritable, write

    if save is not None:
        refuse_unwritable(save, flag="--save")
    opened, db = open_study(study_name, storage)
    found, trial = best_of(opened, db)
    text = json.dumps(found.flat(), indent=2)
    if save is not None:
        write(save, f"{text}\n", flag="--save")
        click.echo(f"saved as {save}", err=True)
    if as_json:
        click.echo(text)
    else:
        print_trial(opened, trial)
        print_figures(found.figures)
    if found.left_out is not None:
        click.echo(f"note: {found.left_out}", err=True)
