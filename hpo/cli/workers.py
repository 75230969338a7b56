"""`workers`: who works, where, on what; and the orders to leave or to end a trial."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from hpo.cli.shared import Command, Whole, json_option, open_study, storage_option
from hpo.errors import ConfigurationError, RunFailed

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hpo.study.study import OpenStudy
    from hpo.tickets.roster import Manned

_WATCH_S = 2.0
# A worker hears of an order at its next beat, within 5 s, and obeys it between two steps.
_OBEYED_S, _POLL_S = 15.0, 0.5


@click.command(cls=Command)
@click.option("--study_name", metavar="NAME", help="of one study alone (default: all studies)")
@storage_option
@click.option(
    "--drain",
    metavar="HOST|WORKER",
    help="have a worker, or all of a host, finish their trials and leave; their runs start no "
    "other on those slots",
)
@click.option(
    "--cancel",
    type=Whole(min=0),
    metavar="TRIAL",
    help="end this running trial now: pruned as 'cancelled'; its worker goes on",
)
@click.option("--watch", is_flag=True, help="again every two seconds, until Ctrl-C")
@json_option
def workers(
    study_name: str | None,
    storage: str | None,
    drain: str | None,
    cancel: int | None,
    watch: bool,
    as_json: bool,
) -> None:
    """List the workers of all studies: host, slot, launcher, GPU, trial, step, last beat, code.

    \b
    Examples:
        python -m hpo workers --watch
        python -m hpo workers --drain node7
        python -m hpo workers --drain node7/gpu:0
        python -m hpo workers --study_name mine --cancel 17
    """
    if sum(map(bool, (drain is not None, cancel is not None, watch))) > 1:
        raise ConfigurationError("--drain, --cancel and --watch are given one at a time")
    if cancel is not None:
        _cancel(*open_study(study_name, storage), cancel)
        return
    if study_name is None:
        from hpo.database.connection import connect
        from hpo.database.migrations import create_tables
        from hpo.environ import storage_url

        db, uid = connect(storage_url(storage)), None
        create_tables(db)
    else:
        opened, db = open_study(study_name, storage)
        uid = opened.uid
    if drain is not None:
        _drain(db, uid, drain, as_json=as_json)
    elif watch:
        _watch(db, uid, as_json=as_json)
    else:
        _show(_living(db, uid), as_json=as_json)


def _living(db: sa.Engine, uid: str | None) -> list[Manned]:
    from hpo.tickets.roster import manned

    # Nothing is known of one that was not seen for long, but that its lease will be another's.
    return [one for one in manned(db, uid) if not one.is_silent or not one.is_idle]


def _show(found: list[Manned], *, as_json: bool) -> None:
    from hpo.display.console import results
    from hpo.display.workers import table

    if as_json:
        click.echo(json.dumps([one.flat() for one in found], indent=2))
    elif found:
        results.print(table(found))
    else:
        click.echo("no worker", err=True)


def _watch(db: sa.Engine, uid: str | None, *, as_json: bool) -> None:
    """Show the workers again and again, on a terminal in place."""
    from rich.live import Live

    from hpo.display.console import results
    from hpo.display.workers import table

    if as_json or not results.is_terminal:
        while True:
            found = _living(db, uid)
            if as_json:
                click.echo(json.dumps([one.flat() for one in found]))
            else:
                _show(found, as_json=False)
            time.sleep(_WATCH_S)
    with Live(console=results, auto_refresh=False) as live:
        while True:
            live.update(table(_living(db, uid)), refresh=True)
            time.sleep(_WATCH_S)


def _drain(db: sa.Engine, uid: str | None, name: str, *, as_json: bool) -> None:
    from hpo.tickets.orders import drain

    chosen = drain(db, _living(db, uid), name)
    if as_json:
        click.echo(json.dumps([one.flat() for one in chosen], indent=2))
        return
    for one in chosen:
        held = f"finishes trial {one.trial} and leaves" if one.trial is not None else "leaves"
        click.echo(f"{one.worker} of study '{one.study}' {held}")


def _cancel(opened: OpenStudy, db: sa.Engine, trial: int) -> None:
    from hpo.database import ended
    from hpo.tickets.orders import cancel, state_of

    worker = cancel(db, opened.uid, trial, study=opened.name)
    if worker is None:
        click.echo(
            f"trial {trial} was interrupted and no worker holds it; the next one that takes it "
            "ends it as pruned, 'cancelled', before it trains"
        )
        return
    deadline = time.monotonic() + _OBEYED_S
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        state = state_of(db, opened.uid, trial)
        if state is None:
            click.echo(
                f"trial {trial} has ended on {worker} before it heard of this, and another one "
                "repeats it; 'python -m hpo workers' shows its number"
            )
            return
        if state not in ("open", "leased"):
            one = ended.read(db, opened.study_id, lambda found: found.numbered(trial))
            reason = None if one is None else one.user_attrs.get("prune_reason")
            why = ", 'cancelled'" if reason == "cancelled" else " before it heard of this"
            click.echo(f"trial {trial} has ended on {worker}: {state}{why}")
            return
    raise RunFailed(
        f"trial {trial} has not ended within {_OBEYED_S:.0f} s; {worker} ends it between two "
        "steps, or the next worker that takes it does"
    )
