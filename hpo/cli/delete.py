"""`delete`: remove a study with all that belongs to it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hpo.cli.shared import Command, checkpoints_of, place_of, storage_option, study_option
from hpo.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from hpo.study.objects import Objects


@click.command(cls=Command)
@study_option
@storage_option
@click.option("--yes", is_flag=True, help="delete without a question")
def delete(study_name: str | None, storage: str | None, yes: bool) -> None:
    """Delete a study with all that belongs to it; shows what that is and asks first.

    Also one that another Optuna program created, and what is left of one that another program
    deleted. Refused while workers hold its trials.

    \b
    Example:
        python -m hpo delete --study_name quadratic-wide-tiny
    """
    from hpo.database.connection import connect
    from hpo.display.delete import print_content
    from hpo.environ import home, storage_url
    from hpo.study.deletion import Folders, content, find, refuse_workers
    from hpo.study.deletion import delete as deleted
    from hpo.study.study import open_study

    db = connect(storage_url(storage), needs_writes=True)
    whole = find(db, study_name)
    refuse_workers(db, whole)
    own = None if whole.uid is None or whole.is_gone else open_study(db, whole.name)
    folders = Folders(checkpoints=checkpoints_of(own), logs=home() / "logs")
    print_content(whole.name, content(db, whole, folders))
    objects = _objects(place_of(own).url, whole.uid)
    if objects is not None:
        click.echo(f"objects    all below {objects}", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                f"there is no terminal to ask at whether to delete study '{whole.name}'; write "
                "--yes to delete it"
            )
        click.confirm(f"delete study '{whole.name}'?", abort=True, err=True)
    deleted(db, whole, folders)
    if objects is not None:
        try:
            objects.clear()
        except Exception as error:
            raise StorageError(
                f"the study is deleted, but not all objects below '{objects}': {error}; remove "
                "them by hand"
            ) from error
    click.echo(f"study '{whole.name}' is deleted", err=True)


def _objects(url: str | None, uid: str | None) -> Objects | None:
    """The objects of a study whose checkpoints are at a URL."""
    if url is None or uid is None:
        return None
    from hpo.study.objects import Objects

    return Objects(url, uid)
