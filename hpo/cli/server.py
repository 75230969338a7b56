"""Commands on the storage: `dashboard`, `url`, `stop`."""

from __future__ import annotations

import click

from hpo.cli.shared import Command, Whole, storage_option
from hpo.errors import ConfigurationError

# Within this time a server starts again; a browser asks again anyway.
_PATIENCE_S = 5.0


@click.command(cls=Command)
@storage_option
@click.option(
    "--host",
    default="127.0.0.1",
    help="the address to listen on; 0.0.0.0 or :: for all (default: 127.0.0.1)",
)
@click.option("--port", type=Whole(0, 65535), default=8080, help="the port (default: 8080)")
@click.option(
    "--allowed_host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="also answer requests to this host name, on any port; once for each name "
    "(default: localhost and --host)",
)
@click.option(
    "--read_only", is_flag=True, help="refuse all changes; reads a replica, creates no tables"
)
def dashboard(
    storage: str | None, host: str, port: int, allowed_hosts: tuple[str, ...], read_only: bool
) -> None:
    """Browse the studies in optuna-dashboard. It has no authentication: keep it on this host.

    \b
    Examples:
        python -m hpo dashboard --port 8081
        python -m hpo dashboard --read_only
        python -m hpo dashboard --host 0.0.0.0 --allowed_host hpo.example.org
    """
    from hpo.dashboard.server import make_dashboard
    from hpo.database.patience import set_patience
    from hpo.environ import storage_url

    # A page is better shown an error than nothing for as long as a command waits.
    set_patience(_PATIENCE_S)
    server = make_dashboard(
        storage_url(storage),
        host=host,
        port=port,
        allowed_hosts=allowed_hosts,
        read_only=read_only,
    )
    click.echo(f"{server.address}  (Ctrl-C ends)", err=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


@click.command(cls=Command)
@storage_option
@click.option(
    "--for",
    "form",
    type=click.Choice(["sqlalchemy", "psql"]),
    default="sqlalchemy",
    help="who will read it (default: sqlalchemy)",
)
@click.option(
    "--superuser",
    is_flag=True,
    help="that of the embedded server's superuser, for psql: as for ALTER SYSTEM",
)
def url(storage: str | None, form: str, superuser: bool) -> None:
    """Print the storage's URL, password included; starts the embedded server.

    \b
    Examples:
        python -m hpo url
        psql "$(python -m hpo url --for psql)"
        psql "$(python -m hpo url --superuser)" -c "ALTER SYSTEM SET max_connections = 500"
    """
    from hpo.database.connection import parse_url
    from hpo.environ import home, named_storage, storage_url

    if superuser:
        from hpo.embedded.server import start

        if named_storage(storage) is not None:
            raise ConfigurationError(
                "--superuser is of the embedded server, and another one is named; leave out "
                "--storage and HPO_STORAGE"
            )
        click.echo(start(home()).superuser_url)
        return

    found = parse_url(storage_url(storage))
    if form == "psql":
        found = found.set(drivername="postgresql")
    click.echo(found.render_as_string(hide_password=False))


@click.command(cls=Command)
@click.option("--force", is_flag=True, help="also while a run or a dashboard uses it")
def stop(force: bool) -> None:
    """Stop the embedded server; its data stay.

    \b
    Example:
        python -m hpo stop
    """
    from hpo.embedded.server import running
    from hpo.embedded.server import stop as stop_server
    from hpo.environ import home

    workers: list[str] = []
    if not force:
        server = running(home())
        workers = _working(server.url) if server else []
    if workers:
        raise ConfigurationError(
            f"the server is in use by {', '.join(workers[:4])}; end that with Ctrl-C first, or "
            "write 'python -m hpo stop --force'"
        )
    if stop_server(home()):
        click.echo("the embedded server is stopped; the next command starts it again", err=True)
    else:
        click.echo("the embedded server is not running", err=True)


def _working(url: str) -> list[str]:
    """Return the workers that hold a trial of any study, or else the connected programs."""
    from hpo.database.connection import connect, other_programs
    from hpo.database.preconditions import look
    from hpo.database.schema import SCHEMA_VERSION
    from hpo.tickets.leases import live_leases

    db = connect(url)
    if look(db).version != SCHEMA_VERSION:
        return other_programs(db)
    return [lease.worker for lease in live_leases(db)] or other_programs(db)
