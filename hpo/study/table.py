"""A study as a table of its trials, and as a CSV file."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError
from hpo.study.study import OpenStudy


def trial_rows(opened: OpenStudy) -> list[dict[str, Any]]:
    """A row a trial, in the order of their numbers, with the column names that Optuna uses.

    Columns: number, state, value, epochs (the last reported), params_*, user_attrs_*, and the
    times of start and end (ISO 8601); None where a trial has no such thing.
    """
    trials = opened.load().get_trials(deepcopy=False)
    params = dict.fromkeys(name for trial in trials for name in trial.params)
    attributes = dict.fromkeys(name for trial in trials for name in trial.user_attrs)
    return [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "epochs": trial.last_step,
            **{f"params_{name}": trial.params.get(name) for name in params},
            **{f"user_attrs_{name}": trial.user_attrs.get(name) for name in attributes},
            "datetime_start": _iso(trial.datetime_start),
            "datetime_complete": _iso(trial.datetime_complete),
        }
        for trial in trials
    ]


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")


def refuse_unwritable(path: Path, *, flag: str) -> None:
    """Raise `ConfigurationError` where a file cannot be written, before anything is worked for."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = (
            "it is a folder"
            if path.is_dir()
            else f"there is no folder '{folder}'"
            if not folder.is_dir()
            else f"nobody may write in '{folder}'"
        )
        raise ConfigurationError(f"'{path}' cannot be written: {what} ({flag})")


def write(path: Path, text: str, *, flag: str) -> None:
    """Write a text file in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode(), flag=flag)


def write_bytes(path: Path, content: bytes, *, flag: str) -> None:
    """Write a file, whole or not at all; a pipe, a device or a link's target is written into.

    Raises:
        ConfigurationError: It cannot be written.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ConfigurationError(
            f"'{path}' cannot be written: {error.strerror or error} ({flag})"
        ) from error


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV (RFC 4180), a header first; empty where there is no row."""
    lines: list[str] = []

    class Sink:
        def write(self, line: str) -> None:
            lines.append(line)

    if rows:
        writer = csv.DictWriter(Sink(), fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return "".join(lines)
