"""`pause` and `resume`: have a study give out no trial for a while, and go on."""

from __future__ import annotations

import click

from hpo.cli.shared import Command, open_study, storage_option
from hpo.errors import ConfigurationError

_STUDY = click.argument("study", metavar="[STUDY]", required=False)


@click.command(cls=Command)
@_STUDY
@storage_option
@click.option(
    "--now",
    is_flag=True,
    help="also give running trials back, with their checkpoints; they go on after 'resume'",
)
def pause(study: str | None, storage: str | None, now: bool) -> None:
    """Begin no trial of a study (default: the only one) until 'resume'.

    Running trials end, or are given back with --now. Runs and workers stay, and wait.

    \b
    Example:
        python -m hpo pause mine --now
    """
    from hpo.tickets import orders

    opened, db = open_study(study, storage)
    if not orders.pause(db, opened.uid, gives_back=now):
        found = orders.paused(db, opened.uid)
        said = f"study '{opened.name}' goes on" if found is None else found.sentence(opened.name)
        raise ConfigurationError(said)
    running = "those that run are given back" if now else "those that run end"
    click.echo(
        f"study '{opened.name}' is paused: no trial begins, {running}; 'python -m hpo resume "
        f"{opened.name}' goes on"
    )


@click.command(cls=Command)
@_STUDY
@storage_option
def resume(study: str | None, storage: str | None) -> None:
    """Go on with a paused study (default: the only one).

    \b
    Example:
        python -m hpo resume mine
    """
    from hpo.tickets import orders

    opened, db = open_study(study, storage)
    if not orders.resume(db, opened.uid):
        raise ConfigurationError(
            f"study '{opened.name}' is not paused; 'python -m hpo pause {opened.name}' pauses it"
        )
    click.echo(f"study '{opened.name}' goes on")
