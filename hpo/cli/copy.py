"""`copy`: copy a study to another database or another name."""

from __future__ import annotations

import sys

import click

from hpo.cli.shared import Command, checkpoints_of, place_of, storage_option, study_option
from hpo.errors import ConfigurationError

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
    from hpo.display.copy import CopyProgress, print_copied
    from hpo.environ import storage_url
    from hpo.study.copy import copy as copied
    from hpo.study.study import claimed, open_study

    place = _read_url() if to == "-" else to
    target = connect(place, application="copy", flag=_TO, needs_writes=True)
    source = connect(storage_url(storage), application="copy")
    opened = claimed(open_study(source, study_name))
    folder = checkpoints_of(opened)
    with CopyProgress() as shown:
        result = copied(
            source,
            opened,
            target,
            name=new_name or opened.name,
            checkpoints=folder,
            progress=shown.show,
        )
    url = place_of(opened).url
    if url is not None:
        _copy_objects(url, opened.uid, result.uid)
    print_copied(opened.name, result, url=target.url.render_as_string(hide_password=False))


def _copy_objects(url: str, old: str, new: str) -> None:
    """Copy the checkpoints at a URL; without them the copy's open trials start over."""
    from hpo.study.objects import Objects

    try:
        Objects(url, old).copy_to(new)
    except Exception as error:
        click.echo(f"note: the checkpoints at '{url}' were not copied: {error}", err=True)


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
