"""The command line: flags in, configurations and exit codes out.

Border: the only package that reads argv, and with `display` the only one that writes to the
terminal: results on stdout, everything else on stderr. Nothing heavy is imported before a command
runs, so that help is instant.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module

import click

from hpo.cli.shared import INTERRUPTED
from hpo.display.terminal import is_hung_up
from hpo.errors import HpoError, RunFailed
from hpo.start import restart

# The commands by their modules, in the order of the help.
_SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Search": {"run": "run", "worker": "worker"},
    "Fleet": {"workers": "workers", "pause": "pause", "resume": "pause"},
    "Results": {
        **{"status": "studies", "studies": "studies", "best": "studies", "train": "train"},
        **{"evaluate": "evaluate", "predictions": "predictions", "replay": "replay"},
        **{"dashboard": "server"},
    },
    "Objectives": {"objectives": "objectives", "check": "objectives", "scenes": "scenes"},
    "Storage": {
        **{"url": "server", "stop": "server", "copy": "copy", "delete": "delete"},
        **{"gc": "predictions", "grant": "grant"},
    },
    "When something is wrong": {"doctor": "doctor"},
}
# Only `train` starts this command, so the help does not list it.
_HIDDEN = {"train_seed": "train"}


class _Imported(Mapping[str, click.Command]):
    """All commands by their names; the module of one is imported when it is asked for."""

    def __init__(self) -> None:
        listed = (pair for members in _SECTIONS.values() for pair in members.items())
        self._modules = {**dict(listed), **_HIDDEN}

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = getattr(import_module(f"hpo.cli.{self._modules[name]}"), name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class _Commands(click.Group):
    """The group of all commands; flags without a command are those of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"-h", "--help", "--version", "--verbose"}
        first = next((arg for arg in args if arg != "--verbose"), "")
        if first.startswith("-") and first not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, members in _SECTIONS.items():
            rows = [(n, self.commands[n].get_short_help_str(limit=200)) for n in members]
            with formatter.section(title):
                formatter.write_dl(rows)


# A flag may be written with hyphens in place of underscores.
_CONTEXT = {
    "token_normalize_func": lambda token: token.replace("-", "_"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}


@click.group(
    cls=_Commands, commands=_Imported(), context_settings=_CONTEXT, invoke_without_command=True
)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0 (done), 1 (failed), 2 (misconfigured) or 130 (interrupted).

    Without `argv` it is the whole program, whose interpreter is started as `hpo.start` says.
    """
    if argv is None:
        restart()
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(args)
    except OSError:
        if not is_hung_up():
            raise
        # Nobody reads on, and what Python still holds could not be written at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return INTERRUPTED


def _main(args: Sequence[str]) -> int:
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
    except BrokenPipeError:
        # The reader of stdout has closed it; Python would fail to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RunFailed.exit_code
    except Exception as error:
        if isinstance(error, OSError) and is_hung_up():
            raise
        if "--verbose" in args:
            traceback.print_exc()
        click.echo(f"hpo: {_explained(error)}", err=True)
        return INTERRUPTED if _is_hurried() else RunFailed.exit_code
    return code if isinstance(code, int) else 0


def _explained(error: Exception) -> str:
    """Describe an unforeseen error in one line."""
    # The module's name is compared because importing SQLAlchemy or Optuna here would be slow.
    if not type(error).__module__.startswith(("sqlalchemy", "optuna", "psycopg2")):
        said = (str(error).strip().splitlines() or ["?"])[0]
        return f"{type(error).__name__}: {said} (not foreseen; --verbose shows where)"
    from hpo.database.faults import fault, is_outage, reason

    # An outage that arrives here outlasted all retries.
    if not is_outage(error):
        said = reason(error)
        return f"the database refuses: {said} ('python -m hpo doctor' looks at rights and tables)"
    found = fault(error)
    return f"{found.what}: {reason(error)}; {found.cure}, and the same command goes on"


def _is_hurried() -> bool:
    """True if the error ended a wait for the database, because of Ctrl-C."""
    from hpo.database.patience import is_hurried

    return is_hurried()
