"""What is asked of a study: `status`, `studies`, `best`, `replay`."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.shared import (
    Command,
    json_option,
    open_study,
    say,
    storage_option,
    study_option,
)
from hpo.errors import ConfigurationError
from hpo.machine.slots import torch_device

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hpo.study.study import OpenStudy
    from objectives import Objective


# How often a watched study is looked at: its workers beat every five seconds.
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
    from hpo.study import table
    from hpo.study.status import status as stand

    if export_csv is not None:
        table.refuse_unwritable(export_csv, flag="--export_csv")
    opened, db = open_study(study_name, storage)
    if export_csv is not None:
        rows = table.trial_rows(opened)
        table.write(export_csv, table.csv_text(rows), flag="--export_csv")
    if watch:
        _watch(opened, db, as_json=as_json)
        return
    found = stand(opened, db)
    if as_json:
        click.echo(json.dumps(found.flat(), indent=2))
    else:
        print_status(found)


def _watch(opened: OpenStudy, db: sa.Engine, *, as_json: bool) -> None:
    """Show a study as it goes on: on a terminal in place, else whenever something changed."""
    import time

    from rich.live import Live
    from rich.text import Text

    from hpo.display.console import results
    from hpo.display.study import status_lines
    from hpo.study.status import status as stand

    is_live = results.is_terminal and not as_json
    shown = None
    with Live(console=results, auto_refresh=False) if is_live else nullcontext() as live:
        while True:
            found = stand(opened, db)
            text = json.dumps(found.flat()) if as_json else "\n".join(status_lines(found))
            if live is not None:
                live.update(Text(text), refresh=True)
            # How long ago something was changes all the time and is no news.
            elif (news := re.sub(_AGES, "", text)) != shown:
                shown = news
                click.echo(text if as_json else f"{text}\n")
            if found.budget.ended == found.budget.total:
                return
            time.sleep(_WATCH_S)


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
    from hpo.database.storage import open_storage, prepare
    from hpo.display.study import print_overview
    from hpo.environ import storage_url
    from hpo.study.overview import overview

    url = storage_url(storage)
    db = connect(url)
    prepare(db)
    found = overview(open_storage(url), db)
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
    from hpo.api.run import best_of
    from hpo.display.study import print_figures, print_trial
    from hpo.study import table

    if save is not None:
        table.refuse_unwritable(save, flag="--save")
    opened, db = open_study(study_name, storage)
    found, trial = best_of(opened, db)
    text = json.dumps(found.flat(), indent=2)
    if save is not None:
        table.write(save, f"{text}\n", flag="--save")
        click.echo(f"saved as {save}", err=True)
    if as_json:
        click.echo(text)
    else:
        print_trial(opened, trial)
        print_figures(found.figures)


@click.command(cls=Command)
@click.argument("trial", metavar="TRIAL|FILE")
@study_option
@storage_option
@click.option(
    "--batch_of_step",
    type=click.IntRange(min=1),
    metavar="N",
    help="take the batch of step N in place of the saved one: is it the batch, or the weights?",
)
@click.option(
    "--objective",
    metavar="NAME|module:attr|path.py",
    help="where the trial's objective is here (default: where it was then)",
)
@click.option("--device", default="cpu", help="the torch device (default: cpu)")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="also keep the saved step as a file, which replays where the database is out of reach",
)
@click.option("--json", "as_json", is_flag=True, help="as JSON, with all that is known")
def replay(
    trial: str,
    study_name: str | None,
    storage: str | None,
    batch_of_step: int | None,
    objective: str | None,
    device: str,
    save: Path | None,
    as_json: bool,
) -> None:
    """Run the saved step of a diverged trial again and judge it afresh.

    The weights, the batch and the random state are those of the step that the verdict was about;
    it runs in fp32, in the trial's precision and in float64, term by term.

    \b
    Examples:
        python -m hpo replay 17
        python -m hpo replay 17 --batch_of_step 1
        python -m hpo replay 17 --save step.pt && python -m hpo replay step.pt
    """
    say(f"replaying the saved step of {trial if Path(trial).suffix else f'trial {trial}'}")
    import torch

    from hpo.display.replay import print_replayed
    from hpo.guard.replay import again
    from hpo.guard.saved_step import read
    from hpo.study import table

    torch.set_num_threads(1)
    is_file = not trial.isdecimal()
    content = _content(trial) if is_file else _saved_step(int(trial), study_name, storage)
    saved = read(content, f"'{trial}'" if is_file else f"what is kept of trial {trial}")
    if save is not None:
        table.write_bytes(save, content, flag="--save")
        click.echo(f"saved as {save} ({len(content) / 1e6:.1f} MB)", err=True)
    chosen = _objective(saved["about"]["study"], objective, is_file=is_file)
    found = again(saved, chosen, device=torch_device(device), step=batch_of_step)
    if as_json:
        click.echo(json.dumps(found.flat(), indent=2))
    else:
        print_replayed(found, step=batch_of_step)


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        reason = "there is no" if isinstance(error, FileNotFoundError) else "cannot read the"
        raise ConfigurationError(
            f"{reason} file '{file}'; write a trial's number or the file of a saved step"
        ) from error


def _objective(settings: dict[str, Any], given: str | None, *, is_file: bool) -> Objective:
    """The objective that a saved step is replayed with."""
    from hpo.study.objective import objective_of

    found, has_changed = objective_of(settings, given, is_file=is_file, what="the saved step")
    if has_changed:
        click.echo(
            "note: the objective's file has changed since the step was saved; so may the verdict",
            err=True,
        )
    return found


def _saved_step(number: int, study_name: str | None, storage: str | None) -> bytes:
    """The file that was kept of a trial's divergence."""
    from hpo.database.artifacts import DatabaseArtifacts
    from hpo.database.records import Records

    opened, db = open_study(study_name, storage)
    kept = Records(db, opened.uid).divergence(number)
    if kept is None:
        trials = opened.load().get_trials(deepcopy=False)
        if number >= len(trials):
            raise ConfigurationError(f"study '{opened.name}' has no trial {number}")
        state = trials[number].state.name.lower()
        reason = trials[number].user_attrs.get("prune_reason", "-")
        why = f"its prune_reason is '{reason}'" if reason != "-" else f"it is {state}"
        raise ConfigurationError(
            f"trial {number} of study '{opened.name}' was not pruned for a divergence ({why}); "
            "there is nothing to replay"
        )
    if kept["artifact_id"] is None:
        raise ConfigurationError(
            f"the step of trial {number} could not be kept when it diverged; what is known of it: "
            f"{kept['detail']}"
        )
    return DatabaseArtifacts(db).open_reader(kept["artifact_id"]).read()
