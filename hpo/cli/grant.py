"""`grant`: make the tables, and a role for workers that may neither change nor delete them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hpo.cli.shared import Command, storage_option
from hpo.errors import ConfigurationError, StorageError


@click.command(cls=Command)
@click.argument("role")
@storage_option
@click.option(
    "--password_file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE|-",
    help="the role's password, the first line of a file or of standard input (default: as it is)",
)
@click.option("--dry_run", is_flag=True, help="print the SQL of the rights, and change nothing")
def grant(role: str, storage: str | None, password_file: Path | None, dry_run: bool) -> None:
    """Make the tables, and a role for workers with the least rights; run it as the tables' owner.

    The role may read, add and change what a study needs. It may delete nothing, and create, change
    or drop no table. A role that exists loses what it has beyond that on these tables.

    \b
    Examples:
        (umask 077; openssl rand -hex 24 > worker_password)
        python -m hpo grant worker --password_file worker_password
        python -m hpo grant worker --dry_run
    """
    from hpo.database.connection import connect
    from hpo.database.migrations import create_tables
    from hpo.database.rights import grant as grant_role
    from hpo.database.rights import granted, refuse
    from hpo.environ import storage_url

    if not role or not role.isprintable():
        raise ConfigurationError("a role's name has one printable character or more")
    password = None if password_file is None else _password(password_file)
    db = connect(storage_url(storage), needs_writes=not dry_run)
    if dry_run:
        from hpo.database.preconditions import look

        if not look(db).has_own_tables:
            raise StorageError("the tables are not there yet; leave out --dry_run to make them")
        with db.connect() as connection:
            refuse(connection, role)
        for statement in granted(db, role):
            click.echo(f"{statement};")
        return
    create_tables(db)
    is_new = grant_role(db, role, password)
    click.echo(
        f"role '{role}' {'is new and ' if is_new else ''}may run studies, and delete nothing",
        err=True,
    )


def _password(file: Path) -> str:
    """The first line of a file, which must not be empty."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigurationError(f"cannot read '{file}': {why} (--password_file)") from error
    password = text.partition("\n")[0].strip()
    if not password:
        raise ConfigurationError(f"the first line of '{file}' is empty (--password_file)")
    return password
