"""Flags and environment in, configurations and exit codes out.

The only module that reads argv and the environment, and the only one that writes to the
terminal: results on stdout, everything else on stderr. Nothing heavy is imported before a
command runs, so that help is instant.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hpo.errors import ConfigurationError, HpoError, RunFailed, StorageError
from objectives import DEFAULT

INTERRUPTED = 130


class _Commands(click.Group):
    """`python -m hpo --n_trials 50` is `python -m hpo run --n_trials 50`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "--version", "--verbose"}
        if args and args[0].startswith("-") and args[0] not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class _RunCommand(click.Command):
    """`run`, with the flags of the objective that it is asked for beside its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--help" not in args:
            ctx.meta["hpo.options"] = _objective_options(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get("hpo.options", [])]


def _objective_options(args: Sequence[str]) -> list[click.Parameter]:
    """The chosen objective's own options as flags."""
    spec = None
    for here, following in zip(args, [*args[1:], ""]):
        if here == "--objective":
            spec = following
        elif here.startswith("--objective="):
            spec = here.partition("=")[2]
    from hpo.study import load_objective

    return [
        click.Option(
            [f"--{name}"],
            type=click.Choice(option.choices) if option.choices else str,
            help=f"{option.help} (default: {option.default})",
        )
        for name, option in load_objective(spec or DEFAULT).options.items()
    ]


# Hyphens are accepted wherever an underscore stands.
_CONTEXT = {
    "token_normalize_func": lambda token: token.replace("-", "_"),
    "help_option_names": ["--help"],
    "max_content_width": 100,
}

_storage_option = click.option(
    "--storage",
    envvar="HPO_STORAGE",
    metavar="URL",
    help="a PostgreSQL database, 'postgresql+psycopg2://user:password@host/database' "
    "(env: HPO_STORAGE; default: the embedded server)",
)
_study_option = click.option(
    "--study_name", metavar="NAME", help="the study (default: the only one there is)"
)


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


@commands.command(cls=_RunCommand)
@click.option(
    "--n_trials",
    type=click.IntRange(min=1),
    metavar="N",
    help="the study's total of trials, over all workers and runs (default: the study's, else 50)",
)
@click.option(
    "--objective",
    metavar="NAME|module:attr|path.py",
    help=f"what to optimize (default: the study's, else {DEFAULT})",
)
@click.option("--epochs_per_trial", type=click.IntRange(min=1), metavar="N", help="(default: 12)")
@click.option("--space", metavar="narrow|wide", help="the search space (default: wide)")
@click.option(
    "--size",
    metavar="auto|tiny|base|full",
    help="of the problem (default: auto, full on a GPU and tiny on a CPU)",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp16", "bf16", "fp32"]),
    help="of the forward pass (default: auto, fp16 on a GPU and fp32 on a CPU)",
)
@click.option(
    "--study_name", metavar="NAME", help="created or resumed (default: objective-space-size)"
)
@_storage_option
@click.option(
    "--workers",
    metavar="N|auto",
    default="auto",
    help="worker processes (default: auto, one a GPU, else one a usable core)",
)
@click.option("--workers_per_gpu", type=click.IntRange(min=1), default=1, help="(default: 1)")
@click.option("--sampler", type=click.Choice(["tpe", "random"]), help="(default: tpe)")
@click.option(
    "--pruner",
    type=click.Choice(["median", "percentile", "sha", "hyperband", "none"]),
    help="(default: percentile, the best quarter at each epoch goes on)",
)
@click.option("--seed", type=int, help="of search, initialization and training draws (default: 0)")
@click.option(
    "--timeout", type=click.FloatRange(min=1), metavar="S", help="wall time, then as Ctrl-C"
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    metavar="S",
    help="seconds that workers have to stop before they are killed (default: 30)",
)
@click.option(
    "--checkpoint_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="checkpoints of running trials and of the best (default: below HPO_HOME)",
)
@click.pass_context
def run(ctx: click.Context, /, **flags: Any) -> None:
    """Create or resume a study, run workers until it is done, show the best trial.

    The same command after an interruption goes on where it stopped; a larger --n_trials adds
    trials. What a study was created with is inherited; a flag that differs is refused.

    \b
    Examples:
        python -m hpo run --n_trials 50
        python -m hpo run --objective quadratic --n_trials 20 --workers 1
        HPO_STORAGE=postgresql+psycopg2://me:secret@db/hpo python -m hpo run --n_trials 500

    An objective's own flags (--installation of ris_covariance) are listed in the README.
    """
    from hpo import display, fleet
    from hpo.launchers.local import LocalLauncher

    own = {option.name for option in ctx.meta["hpo.options"] if option.name}
    options = {name: flags[name] for name in own if flags.get(name) is not None}
    slots, on_gpu = _slots(flags["workers"], flags["workers_per_gpu"])
    asked = _asked(flags, options)
    defaults = {
        "epochs": 12,
        "space": "wide",
        "size": "full" if on_gpu else "tiny",
        "precision": "fp16" if on_gpu else "fp32",
        "seed": 0,
        "sampler": "tpe",
        "pruner": "percentile",
    }
    request = fleet.StudyRequest(
        objective=_absolute(flags["objective"]),
        name=flags["study_name"],
        n_trials=flags["n_trials"],
        asked=asked,
        defaults=defaults,
    )
    url = _url(flags["storage"])
    prepared = fleet.prepare_study(url, request)
    opened = prepared.opened
    checkpoints = (flags["checkpoint_dir"] or _home() / "checkpoints") / opened.uid
    config = fleet.FleetConfig(
        slots=slots,
        checkpoints=checkpoints.absolute(),
        logs=_home() / "logs" / opened.uid,
        grace_s=flags["grace"],
        timeout_s=flags["timeout"],
    )
    shown = display.Display(opened, config)
    shown.begin(prepared, asked=asked, on_gpu=on_gpu)
    stop = _stop_on_signals()
    with shown:
        result = fleet.run(prepared, config, LocalLauncher(os.environ), emit=shown.show, stop=stop)
    shown.end(result, url=url, is_embedded=flags["storage"] is None)
    if result.is_interrupted:
        ctx.exit(INTERRUPTED)


def _asked(flags: dict[str, Any], options: dict[str, str]) -> dict[str, Any]:
    """The settings of the study that were given explicitly, by their names in its config."""
    named = {"epochs": "epochs_per_trial"}
    names = ("epochs", "space", "size", "precision", "seed", "sampler", "pruner")
    values = {name: flags[named.get(name, name)] for name in names}
    asked = {name: value for name, value in values.items() if value not in (None, "auto")}
    return {**asked, "options": options} if options else asked


def _slots(workers: str, per_gpu: int) -> tuple[list[Any], bool]:
    """The slots to run on, and whether they are GPUs."""
    from hpo import slots

    if workers != "auto" and not (workers.isdecimal() and int(workers) > 0):
        raise ConfigurationError(f"--workers '{workers}' is neither 'auto' nor a number above 0")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = slots.gpu_count(visible=visible)
    if gpus:
        found = slots.gpu_slots(gpus, visible=visible, per_gpu=per_gpu)
        if workers != "auto" and int(workers) > len(found):
            raise ConfigurationError(
                f"--workers {workers} is more than {gpus} GPUs hold; write --workers_per_gpu K too"
            )
        return (found if workers == "auto" else found[: int(workers)]), True
    return slots.cpu_slots(slots.usable_cores() if workers == "auto" else int(workers)), False


def _absolute(objective: str | None) -> str | None:
    """A file is found again by workers whatever their working folder."""
    if objective is not None and objective.endswith(".py"):
        return str(Path(objective).absolute())
    return objective


def _stop_on_signals() -> threading.Event:
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


@commands.command()
@click.option("--study_name", required=True, metavar="NAME")
@_storage_option
@click.option("--slot", default="cpu:0", help="how this worker is called (default: cpu:0)")
@click.option("--device", default="cpu", help="the torch device (default: cpu)")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="(default: 1)")
@click.option("--checkpoint_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--with_parent", type=int, metavar="PID", help="stop when this parent process is gone"
)
def worker(
    study_name: str,
    storage: str | None,
    slot: str,
    device: str,
    threads: int,
    checkpoint_dir: Path | None,
    with_parent: int | None,
) -> None:
    """Run one worker of a study that exists; what every launcher runs, on any host.

    \b
    Example:
        HPO_STORAGE=postgresql+psycopg2://me:secret@db/hpo python -m hpo worker \\
            --study_name ris_covariance-wide-full --slot gpu:0 --device cuda
    """
    import platform
    import resource
    import time

    import torch

    from hpo.beat import watch_parent
    from hpo.database import connect
    from hpo.study import open_study
    from hpo.worker import Worker, WorkerConfig

    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {slot} | %(message)s",
        stream=sys.stderr,
    )
    stop = _stop_on_signals()
    if with_parent is not None:
        watch_parent(with_parent, stop)
    torch.set_num_threads(threads)
    url = _url(storage)
    try:
        db = connect(url, application=slot)
        opened = open_study(db, study_name)
    except StorageError as error:
        # Not a misconfiguration: the fleet may start this worker again.
        raise RunFailed(str(error)) from error
    config = WorkerConfig(
        name=f"{platform.node()}/{slot}",
        slot=slot,
        device=device,
        checkpoints=checkpoint_dir or _home() / "checkpoints" / opened.uid,
    )
    runner = Worker(config, opened, db, stop)
    started_cpu_s = time.process_time()
    runner.run()
    logging.getLogger(__name__).info(
        "CPU: start %.1f s, training and validation %.1f s, the rest %.1f s; peak memory %d MB",
        started_cpu_s,
        runner.training_cpu_s,
        time.process_time() - started_cpu_s - runner.training_cpu_s,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


@commands.command()
@_study_option
@_storage_option
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def best(study_name: str | None, storage: str | None, as_json: bool) -> None:
    """Show the best trial of a study and its parameters.

    \b
    Example:
        python -m hpo best --json
    """
    from hpo import display
    from hpo.database import connect
    from hpo.fleet import best_trial
    from hpo.study import open_study

    opened = open_study(connect(_url(storage)), study_name)
    trial = best_trial(opened.load())
    if trial is None:
        raise ConfigurationError(f"study '{opened.name}' has no complete trial yet")
    if as_json:
        found = {
            "study": opened.name,
            "trial": trial.number,
            "metric": opened.config.metric,
            "value": trial.value,
            "params": trial.params,
        }
        click.echo(json.dumps(found, indent=2))
    else:
        display.print_trial(opened, trial)


@commands.command()
@_storage_option
@click.option("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, help="the port (default: 8080)"
)
def dashboard(storage: str | None, host: str, port: int) -> None:
    """Browse the studies in optuna-dashboard. It has no authentication: keep it on this host.

    \b
    Example:
        python -m hpo dashboard --port 8081
    """
    from hpo.dashboard import make_dashboard
    from hpo.database import connect
    from hpo.storage import prepare

    url = _url(storage)
    prepare(connect(url))
    server = make_dashboard(url, host=host, port=port)
    click.echo(f"http://{host}:{server.server_port}/  (Ctrl-C ends)", err=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


@commands.command()
@_storage_option
@click.option(
    "--for",
    "form",
    type=click.Choice(["sqlalchemy", "psql"]),
    default="sqlalchemy",
    help="who will read it (default: sqlalchemy)",
)
def url(storage: str | None, form: str) -> None:
    """Print the storage's URL, password included; starts the embedded server.

    \b
    Examples:
        python -m hpo url
        psql "$(python -m hpo url --for psql)"
    """
    from hpo.database import parse_url

    found = parse_url(_url(storage))
    if form == "psql":
        found = found.set(drivername="postgresql")
    click.echo(found.render_as_string(hide_password=False))


@commands.command()
@click.option("--force", is_flag=True, help="also while a run or a dashboard uses it")
def stop(force: bool) -> None:
    """Stop the embedded server; its data stay.

    \b
    Example:
        python -m hpo stop
    """
    from hpo import postgres

    server = postgres.running(_home())
    if server is None:
        click.echo("the embedded server is not running", err=True)
        return
    workers = _working(server.url)
    if workers and not force:
        raise ConfigurationError(
            f"the server is in use by {', '.join(workers[:4])}; end that with Ctrl-C first, or "
            "write 'python -m hpo stop --force'"
        )
    postgres.stop(_home())
    click.echo("the embedded server is stopped; the next command starts it again", err=True)


def _working(url: str) -> list[str]:
    """The workers that hold a trial, in any study, and the programs that are connected."""
    from hpo.budget import live_leases
    from hpo.database import connect, other_programs
    from hpo.schema import schema_version

    db = connect(url)
    if not schema_version(db):
        return []
    return [lease.worker for lease in live_leases(db)] or other_programs(db)


def _home() -> Path:
    from hpo import postgres

    given = os.environ.get("HPO_HOME")
    return Path(given).absolute() if given else postgres.default_home(os.environ)


def _url(storage: str | None) -> str:
    """The storage that is named, else the embedded server's, started if need be."""
    from hpo import postgres
    from hpo.database import parse_url

    if storage:
        return parse_url(storage).render_as_string(hide_password=False)
    return postgres.start(_home()).url


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
