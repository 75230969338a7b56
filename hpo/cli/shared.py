"""Shared parts of the commands: options, `--verbose`, signals, opening a study."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hpo.study.place import Place
    from hpo.study.study import OpenStudy

INTERRUPTED = 130
# Schedulers announce the end of a job by SIGUSR1 or SIGUSR2, a closed terminal by SIGHUP.
ANNOUNCED = (signal.SIGUSR1, signal.SIGUSR2)
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *ANNOUNCED)

storage_option = click.option(
    "--storage",
    envvar="HPO_STORAGE",
    metavar="URL",
    help="a PostgreSQL database, 'postgresql+psycopg2://user:password@host/database' "
    "(env: HPO_STORAGE; default: the embedded server)",
)
study_option = click.option(
    "--study_name", metavar="NAME", help="the study (default: the only one there is)"
)
json_option = click.option("--json", "as_json", is_flag=True, help="as JSON")


class Whole(click.IntRange):
    """A whole number within limits; click calls it a range in its errors."""

    name = "whole number"


class Number(click.FloatRange):
    """A number within limits."""

    name = "number"


class Command(click.Command):
    """A command that accepts `--verbose`; `main` reads that flag from the arguments."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        if any(param.name == "verbose" for param in params):
            return params
        flag = click.Option(
            ["--verbose"], is_flag=True, expose_value=False, help="show the traceback of an error"
        )
        return [*params, flag]

    def invoke(self, ctx: click.Context) -> Any:
        # These run their user's code, which may have connections of its own.
        if "storage" in ctx.params and self.name not in ("worker", "replay", "evaluate"):
            from hpo.database import waiting

            waiting.install()
        if self.name == "run":
            interrupt_on_signals(STOPS)
        elif self.name == "worker":
            # Its fleet tells a worker that SIGTERM ended from one that failed by itself.
            interrupt_on_signals(ANNOUNCED)
        return super().invoke(ctx)


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without collections, and never look through what was imported.

    A process that imports torch makes 350,000 objects that stay. Collections among them take a
    fifth of the time of its imports, and find 2% of the objects.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def say(line: str) -> None:
    """Print a line for people on stderr, as before a step that takes seconds."""
    click.echo(line, err=True)


def open_study(study_name: str | None, storage: str | None) -> tuple[OpenStudy, sa.Engine]:
    """Open the named study, or the only one; return it and its database.

    Raises:
        ConfigurationError: There is no such study, or there are several and none was named.
        StorageError: The database cannot be used.
    """
    from hpo.database.connection import connect
    from hpo.environ import storage_url
    from hpo.study.study import open_study as opened

    db = connect(storage_url(storage))
    return opened(db, study_name), db


def checkpoints_of(opened: OpenStudy | None) -> Path:
    """Return this host's checkpoint folder of a study's latest run, else the home's."""
    from hpo.environ import home

    return place_of(opened).folder or home() / "checkpoints"


def place_of(opened: OpenStudy | None) -> Place:
    """Return where the checkpoints of a study's latest run are."""
    from hpo.study.place import Place
    from hpo.study.study import last_run

    return Place.of(last_run(opened).get("checkpoint_dir") if opened else None)


def stop_on_signals(
    stop: threading.Event | None = None, *, signals: Sequence[signal.Signals] = STOPS
) -> threading.Event:
    """Have Ctrl-C and what counts as one set an event from now on; return it."""
    from hpo.database.patience import stop_waiting

    stop = threading.Event() if stop is None else stop

    def obey(*_: object) -> None:
        stop.set()
        stop_waiting()

    for number in signals:
        # `nohup` ignores SIGHUP for its command, which must stay so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, obey)
    return stop


def interrupt_on_signals(signals: Sequence[signal.Signals]) -> None:
    """Have signals raise KeyboardInterrupt, as Ctrl-C does, until `stop_on_signals` is called."""
    for number in signals:
        # What is ignored or handled already stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def workers_of(given: str) -> int | None:
    """Parse the number of `--workers`; None for `auto`."""
    if given == "auto":
        return None
    if not (given.isdecimal() and int(given) > 0):
        raise ConfigurationError(f"--workers '{given}' is neither 'auto' nor a number above 0")
    return int(given)
