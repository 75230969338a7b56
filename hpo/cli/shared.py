"""What several commands share: options, the home, the storage's URL, signals."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click

INTERRUPTED = 130

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


def stop_on_signals() -> threading.Event:
    """An event that Ctrl-C, SIGTERM and a closed terminal set."""
    from hpo.database import stop_waiting

    stop = threading.Event()

    def obey(*_: object) -> None:
        stop.set()
        stop_waiting()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup has SIGHUP ignored, and is to be obeyed.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, obey)
    return stop


def home() -> Path:
    """Where the embedded server, checkpoints and logs are."""
    from hpo import postgres

    given = os.environ.get("HPO_HOME")
    return Path(given).absolute() if given else postgres.default_home(os.environ)


def storage_url(storage: str | None) -> str:
    """The storage that is named, else the embedded server's, started if need be."""
    from hpo import postgres
    from hpo.database import parse_url

    if storage:
        return parse_url(storage).render_as_string(hide_password=False)
    return postgres.start(home()).url
