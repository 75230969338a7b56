"""`run`: create or resume a study and run workers until it is done."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.objective_flags import given_options
from hpo.cli.run_flags import RunCommand, run_flags
from hpo.cli.shared import INTERRUPTED, stop_on_signals, workers_of
from hpo.errors import ConfigurationError, HpoError, RunFailed
from hpo.study.request import FLAGS

if TYPE_CHECKING:
    from hpo.display.run import Display
    from hpo.fleet.events import Event
    from hpo.study.study import OpenStudy


@click.command(cls=RunCommand)
@run_flags
@click.pass_context
def run(ctx: click.Context, /, **flags: Any) -> None:
    """Create or resume a study, run workers until it is done, show the best trial.

    The same command after an interruption goes on where it stopped; a larger --n_trials adds
    trials. What a study was created with is inherited; a flag that differs is refused.

    \b
    Examples:
        python -m hpo run --n_trials 50
        python -m hpo run --objective quadratic --n_trials 20 --workers 1
        python -m hpo run --objective mine.py --set width=64 --range lr=1e-4,1e-2,log
        python -m hpo run --config study.toml --export_csv trials.csv
        HPO_STORAGE=postgresql+psycopg2://me:secret@db/hpo python -m hpo run --n_trials 500

    With --objective, --help shows the objective's own flags, too.
    """
    from hpo.environ import home, named_storage
    from hpo.files import refuse_unwritable

    csv_path, is_embedded = flags["export_csv"], named_storage(flags["storage"]) is None
    if csv_path is not None:
        refuse_unwritable(csv_path, flag="--export_csv")
    given = {flag.name: flags[flag.name] for flag in FLAGS}
    given["workers"] = workers_of(given["workers"])
    for pairs in ("set", "range"):
        given[pairs] = _pairs(given[pairs], f"--{pairs}")
    if given["enqueue"] is not None:
        from hpo.search import configurations

        given["enqueue"] = configurations.read(given["enqueue"])
    if is_embedded and not (flags["quiet"] or flags["log_json"]):
        from hpo.display.console import errors, labelled

        # The server may take seconds to start, so the line comes before it.
        errors.print(labelled("storage", f"the embedded PostgreSQL in {home()}"))

    from hpo.api.run import run as run_study

    stop = threading.Event()
    with _Shown(flags, stop, is_embedded=is_embedded) as shown:
        try:
            result = run_study(
                study=given.pop("study_name"),
                enqueue=given.pop("enqueue") or (),
                storage=flags["storage"],
                options=given_options(ctx, flags),
                on_event=shown.show,
                stop=stop,
                **given,
            )
        except HpoError as error:
            if csv_path is not None and shown.opened is not None:
                with suppress(HpoError):
                    _export(csv_path, shown.opened)
            if shown.opened is not None and error.exit_code == ConfigurationError.exit_code:
                # A start that can never work exits with 2, and nothing that happens later.
                raise RunFailed(str(error)) from error
            raise
    if flags["as_json"]:
        shown.display.note_end(result)
        click.echo(json.dumps(result.flat(), indent=2))
    else:
        shown.display.end(result, is_embedded=is_embedded)
    if csv_path is not None and shown.opened is not None:
        # The table comes after the result, which a full disk must not hide.
        _export(csv_path, shown.opened)
        shown.display.say(f"the trials are in {csv_path}")
    if result.is_interrupted:
        ctx.exit(INTERRUPTED)


class _Shown:
    """The display of a run, made for its first event, so that an error comes first."""

    opened: OpenStudy | None = None

    def __init__(
        self, flags: Mapping[str, Any], stop: threading.Event, *, is_embedded: bool
    ) -> None:
        self._flags, self._stop, self._is_embedded = flags, stop, is_embedded
        self._stack = ExitStack()

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    @cached_property
    def display(self) -> Display:
        from hpo.display.run import Display, Level

        return Display(Level.of(self._flags))

    def show(self, event: Event) -> None:
        """Show an event of the run."""
        from hpo.fleet.events import Connected, Starting

        if isinstance(event, Connected) and self._is_embedded:
            return
        self.display.show(event)
        if isinstance(event, Starting):
            self.opened = event.opened
            # Workers run from here on, and must checkpoint their trials on an interruption.
            stop_on_signals(self._stop)
            self._stack.enter_context(self.display)


def _export(path: Path, opened: OpenStudy) -> None:
    from hpo.files import write
    from hpo.study import table

    write(path, table.trials_csv(opened), flag="--export_csv")


def _pairs(given: Sequence[str], flag: str) -> dict[str, str]:
    """Parse a repeated flag's 'name=value' pairs; the last value of a name counts."""
    pairs = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            form = "NAME=VALUE" if flag == "--set" else "NAME=LOW,HIGH[,log]"
            raise ConfigurationError(f"{flag} '{one}' is not of the form {form}")
        pairs[name.strip()] = value.strip()
    return pairs
