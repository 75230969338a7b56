"""`run`: create or resume a study, run workers until it is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hpo.cli.config_file import flag_value, read_config, refuse_unknown
from hpo.cli.shared import INTERRUPTED, Command, json_option, stop_on_signals, storage_option
from hpo.errors import ConfigurationError
from hpo.request import CHOICES
from objectives import DEFAULT


class _RunCommand(Command):
    """`run`, with the flags of the objective that it is asked for beside its own, and a file's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = flag_value(args, "config")
        path = Path(given) if given else None
        config = read_config(path) if path else {}
        objective = flag_value(args, "objective") or config.get("objective")
        if objective or _has_unknown([*args, *(f"--{name}" for name in config)], self, ctx):
            # Importing an objective takes seconds, so not without need.
            ctx.meta["hpo.options"] = _objective_options(objective or DEFAULT)
        if path:
            names = {_flag(param): param.name for param in self.get_params(ctx) if param.name}
            refuse_unknown(config, [flag for flag in names if flag != "config"], path)
            config = {names[flag]: value for flag, value in config.items()}
            ctx.default_map = config
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if objective is not None:
                raise
            raise click.UsageError(
                f"{error.format_message()} The flags of an objective need --objective beside them.",
                ctx,
            ) from error
        except click.BadParameter as error:
            name = error.param.name if error.param and error.param.name else ""
            if name not in config or flag_value(args, _flag(error.param)) is not None:
                raise
            where = f"{error.message} (in '{path}')"
            raise click.BadParameter(where, error.ctx, error.param) from error

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get("hpo.options", [])]


def _flag(param: click.Parameter | None) -> str:
    """A parameter's name on the command line."""
    return param.opts[0].removeprefix("--") if param else ""


def _has_unknown(args: Sequence[str], command: click.Command, ctx: click.Context) -> bool:
    """Whether a flag is none of the command's own, and so perhaps the objective's."""
    own = {name for param in command.get_params(ctx) for name in param.opts}
    flags = (arg.partition("=")[0].replace("-", "_") for arg in args if arg.startswith("--"))
    return any(f"--{flag[2:]}" not in own for flag in flags)


def _objective_options(spec: str) -> list[click.Parameter]:
    """An objective's own options as flags."""
    from hpo.study import load_objective

    return [
        click.Option(
            [f"--{name}"],
            type=click.Choice(option.choices) if option.choices else str,
            help=f"{option.help} (of this objective; default: {option.default})".strip(),
        )
        for name, option in load_objective(spec).options.items()
    ]


class _NameOrAttribute(click.Choice[str]):
    """One of some names, or `module:attr`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and ":" in value:
            return value
        return super().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join([*self.choices, "module:attr"])


@click.command(cls=_RunCommand)
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
@click.option(
    "--epochs_per_trial",
    type=click.IntRange(min=1),
    metavar="N",
    help="after each of which a trial is validated and perhaps pruned (default: 12)",
)
@click.option("--space", metavar="narrow|wide", help="the search space (default: wide)")
@click.option(
    "--size",
    metavar="auto|tiny|base|full",
    help="of the problem (default: auto, full on a GPU and tiny on a CPU)",
)
@click.option(
    "--precision",
    type=click.Choice(CHOICES["precision"]),
    help="of the forward pass (default: auto, fp16 on a GPU and fp32 on a CPU)",
)
@click.option(
    "--study_name", metavar="NAME", help="created or resumed (default: objective-space-size)"
)
@storage_option
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="flags from a file, its keys their names; flags on the command line win",
)
@click.option(
    "--set",
    "fixed",
    multiple=True,
    metavar="NAME=VALUE",
    help="fix a parameter in place of searching it; can be repeated",
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=LOW,HIGH[,log]",
    help="search a parameter in less than its range; can be repeated",
)
@click.option(
    "--enqueue",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="configurations to try next, whole or in part: an object, a list of them, or a file of "
    "'best --save'",
)
@click.option(
    "--sampler",
    type=_NameOrAttribute(["auto", "tpe", "gp", "cmaes", "random"]),
    help="what proposes configurations; each learns from divergence; auto: gp for five or more "
    "numbers in up to 200 trials, else tpe (default: tpe)",
)
@click.option(
    "--pruner",
    type=_NameOrAttribute(["median", "percentile", "sha", "hyperband", "none"]),
    help="what ends trials early (default: percentile, the best quarter at each epoch goes on)",
)
@click.option(
    "--on_precision_range",
    type=click.Choice(CHOICES["on_precision_range"]),
    help="a configuration that only its precision lost: prune it, or rerun it once in the next "
    "wider one (default: prune, a winner must train in the precision asked for)",
)
@click.option("--seed", type=int, help="of search, initialization and training draws (default: 0)")
@click.option(
    "--force",
    is_flag=True,
    help="go on with a study that was created with something else; recorded on the trials that "
    "follow, in their attribute 'forced'",
)
@click.option(
    "--workers",
    metavar="N|auto",
    default="auto",
    help="worker processes (default: auto, one a GPU, else one a usable core)",
)
@click.option(
    "--workers_per_gpu",
    type=click.IntRange(min=1),
    default=1,
    metavar="K",
    help="workers that share a GPU (default: 1)",
)
@click.option("--gpus", metavar="0,2", help="the GPUs to use (default: all that are visible)")
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
@click.option(
    "--export_csv",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="write all trials as a table at the end, also when interrupted",
)
@json_option
@click.option("--verbose", is_flag=True, help="a line for each trial; the traceback of an error")
@click.option("--quiet", is_flag=True, help="nothing on stderr but errors")
@click.option("--log_json", is_flag=True, help="progress on stderr as a JSON object a line")
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
    from hpo import configurations, report
    from hpo.display.console import errors
    from hpo.environ import home, named_storage, storage_url, variables, visible_gpus

    workers, csv_path = _workers(flags["workers"]), flags["export_csv"]
    if csv_path is not None:
        report.refuse_unwritable(csv_path, flag="--export_csv")
    enqueue = configurations.read(flags["enqueue"]) if flags["enqueue"] else ()
    is_plain = not (flags["quiet"] or flags["log_json"])
    is_embedded = named_storage(flags["storage"]) is None
    if is_plain and is_embedded:
        errors.print(f"[bold]storage[/bold]    the embedded PostgreSQL in {home()}")
    url = storage_url(flags["storage"])

    # Heavy, and so only after the first line, and after what a wrong storage is told.
    from hpo.database import connect, mask
    from hpo.request import RunRequest, find_slots

    connect(url, application="fleet").dispose()
    if is_plain and not is_embedded:
        errors.print(f"[bold]storage[/bold]    {mask(url)}")
    own = {option.name for option in ctx.meta.get("hpo.options", []) if option.name}
    same = (
        *("n_trials", "objective", "study_name", "epochs_per_trial", "space", "size", "precision"),
        *("sampler", "pruner", "on_precision_range", "seed", "force", "workers_per_gpu"),
        "checkpoint_dir",
    )
    request = RunRequest(
        **{name: flags[name] for name in same},
        options={name: flags[name] for name in own if flags.get(name) is not None},
        fixed=_pairs(flags["fixed"], "--set"),
        ranges=_pairs(flags["ranges"], "--range"),
        enqueue=enqueue,
        workers=workers,
        gpus=[name.strip() for name in (flags["gpus"] or "").split(",") if name.strip()],
        timeout_s=flags["timeout"],
        grace_s=flags["grace"],
    )
    slots = find_slots(request, visible=visible_gpus())

    from hpo import fleet
    from hpo.display.run import Display, Level
    from hpo.launchers.local import LocalLauncher
    from hpo.prepare import prepare_study

    prepared = prepare_study(url, request, on_gpu=slots[0].device == "cuda")
    config = fleet.FleetConfig.below(home(), request, prepared, slots)
    shown = Display(prepared, config, Level.of(flags))
    shown.begin(asked=request.asked())
    stop = stop_on_signals()
    try:
        with shown:
            result = fleet.run(
                prepared, config, LocalLauncher(variables()), emit=shown.show, stop=stop
            )
    finally:
        if csv_path is not None:
            rows = report.trial_rows(prepared.opened)
            report.write(csv_path, report.csv_text(rows), flag="--export_csv")
    if flags["as_json"]:
        shown.note_end(result)
        click.echo(json.dumps(result.flat(), indent=2))
    else:
        shown.end(result, is_embedded=is_embedded)
    if csv_path is not None:
        shown.say(f"the trials are in {csv_path}")
    if result.is_interrupted:
        ctx.exit(INTERRUPTED)


def _workers(given: str) -> int | None:
    if given == "auto":
        return None
    if not (given.isdecimal() and int(given) > 0):
        raise ConfigurationError(f"--workers '{given}' is neither 'auto' nor a number above 0")
    return int(given)


def _pairs(given: Sequence[str], flag: str) -> dict[str, str]:
    """'name=value' of a repeated flag, by name; the last one of a name counts."""
    pairs = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            form = "NAME=VALUE" if flag == "--set" else "NAME=LOW,HIGH[,log]"
            raise ConfigurationError(f"{flag} '{one}' is not of the form {form}")
        pairs[name.strip()] = value.strip()
    return pairs
