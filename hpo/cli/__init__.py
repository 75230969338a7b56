"""Flags and environment in, configurations and exit codes out.

The only package that reads argv and the environment, and with `display` the only one that writes
to the terminal: results on stdout, everything else on stderr. Nothing heavy is imported before a
command runs, so that help is instant.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from hpo.cli.run import run
from hpo.cli.server import dashboard, stop, url
from hpo.cli.shared import INTERRUPTED
from hpo.cli.studies import best, replay, status
from hpo.cli.worker import worker
from hpo.errors import HpoError, RunFailed


class _Commands(click.Group):
    """`python -m hpo --n_trials 50` is `python -m hpo run --n_trials 50`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"-h", "--help", "--version", "--verbose"}
        if args and args[0].startswith("-") and args[0] not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


# Hyphens are accepted wherever an underscore stands.
_CONTEXT = {
    "token_normalize_func": lambda token: token.replace("-", "_"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}


@click.group(cls=_Commands, context_settings=_CONTEXT, invoke_without_command=True)
@click.option("--verbose", is_flag=True, help="show the traceback of an error")
@click.version_option(package_name="hpo", message="hpo %(version)s")
@click.pass_context
def commands(ctx: click.Context, verbose: bool) -> None:
    """Hyperparameter optimization for networks trained in mixed precision.

    Without a command, flags are those of `run`:

        python -m hpo --n_trials 50

    Everything is kept in a PostgreSQL server that starts by itself, below HPO_HOME (default:
    ~/.local/share/hpo), or in the one that --storage or HPO_STORAGE names.
    """
    ctx.obj = {"verbose": verbose}
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (run, worker, status, best, replay, dashboard, url, stop):
    commands.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0 done, 1 failed, 2 misconfigured, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = commands.main(args, prog_name="python -m hpo", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        return INTERRUPTED
    except HpoError as error:
        if "--verbose" in args:
            traceback.print_exc()
        click.echo(f"hpo: {error}", err=True)
        return error.exit_code
    except Exception as error:
        # SQLAlchemy is not imported here; what it raises this late is an outage that went on.
        if "--verbose" in args or not type(error).__module__.startswith(("sqlalchemy", "optuna")):
            raise
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        click.echo(f"hpo: the database went away: {reason}; the same command goes on", err=True)
        from hpo.database import is_hurried

        return INTERRUPTED if is_hurried() else RunFailed.exit_code
    return code if isinstance(code, int) else 0
