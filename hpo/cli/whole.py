"""Commands on a whole study: `copy`, `delete`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpo.cli.shared import Command, storage_option, study_option
from hpo.errors import ConfigurationError

if TYPE_CHECKING:
    from hpo.study.study import OpenStudy

_TO = "--to"


@click.command(cls=Command)
@click.option(
    _TO,
    required=True,
    metavar="URL",
    help="the database to copy to, as --storage takes it; '-' reads the URL from standard input, "
    "which keeps its password out of the list of processes",
)
@study_option
@click.option("--as", "new_name", metavar="NEW_NAME", help="the copy's name (default: the study's)")
@storage_option
def copy(to: str, study_name: str | None, new_name: str | None, storage: str | None) -> None:
    """Copy a study to another database, where it goes on: from the embedded server to a real one.

    Trials, records and saved steps go along, and the checkpoints that are below HPO_HOME here. The
    copy is made all or not at all; the study stays as it is, and both may go on.

    \b
    Examples:
        python -m hpo copy --to - < url.txt
        python -m hpo copy --to postgresql+psycopg2://me@db/hpo --as second
    """
    from hpo.database.connection import connect
    from hpo.display.whole import CopyProgress, print_copied
    from hpo.environ import storage_url
    from hpo.study.copy import copy as copied
    from hpo.study.study import open_study

    target = connect(_read_url() if to == "-" else to, application="copy", flag=_TO)
    source = connect(storage_url(storage), application="copy")
    opened = open_study(source, study_name)
    folder = _checkpoints(opened)
    with CopyProgress() as shown:
        result = copied(
            source,
            opened,
            target,
            name=new_name or opened.name,
            checkpoints=folder,
            progress=shown.show,
        )
    print_copied(opened.name, result, url=target.url.render_as_string(hide_password=False))


def _checkpoints(opened: OpenStudy | None) -> Path:
    """Return the checkpoint folder of a study's latest run, else the home's."""
    from hpo.environ import home
    from hpo.study.study import last_run

    named = last_run(opened).get("checkpoint_dir") if opened else None
    return Path(named) if named else home() / "checkpoints"


def _read_url() -> str:
    if sys.stdin.isatty():
        url: str = click.prompt("URL of the database to copy to", hide_input=True, err=True)
    else:
        url = sys.stdin.readline().strip()
    if not url:
        raise ConfigurationError(
            "no URL came on standard input; write "
            "'echo postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE | python -m hpo copy --to -'"
        )
    return url


@click.command(cls=Command)
@study_option
@storage_option
@click.option("--yes", is_flag=True, help="delete without a question")
def delete(study_name: str | None, storage: str | None, yes: bool) -> None:
    """Delete a study with all that belongs to it; shows what that is and asks first.

    Also one that another Optuna program created. Refused while workers hold its trials.

    \b
    Example:
        python -m hpo delete --study_name quadratic-wide-tiny
    """
    from hpo.database.connection import connect
    from hpo.display.whole import print_content
    from hpo.environ import home, storage_url
    from hpo.study.deletion import (
        Folders,
        content,
        find,
        refuse_workers,
    )
    from hpo.study.deletion import delete as deleted
    from hpo.study.study import open_study

    db = connect(storage_url(storage))
    whole = find(db, study_name)
    refuse_workers(db, whole)
    own = None if whole.uid is None else open_study(db, whole.name)
    folders = Folders(checkpoints=_checkpoints(own), logs=home() / "logs")
    print_content(whole.name, content(db, whole, folders))
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                f"there is no terminal to ask at whether to delete study '{whole.name}'; write "
                "--yes to delete it"
            )
        click.confirm(f"delete study '{whole.name}'?", abort=True, err=True)
    deleted(db, whole, folders)
    click.echo(f"study '{whole.name}' is deleted", err=True)
