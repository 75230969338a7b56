"""`run`: create or resume a study, run workers until it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hpo.cli.shared import INTERRUPTED, Command, stop_on_signals, storage_option
from hpo.errors import ConfigurationError
from objectives import DEFAULT


class _RunCommand(Command):
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
@storage_option
@click.option(
    "--workers",
    metavar="N|auto",
    default="auto",
    help="worker processes (default: auto, one a GPU, else one a usable core)",
)
@click.option("--workers_per_gpu", type=click.IntRange(min=1), default=1, help="(default: 1)")
@click.option(
    "--sampler",
    type=click.Choice(["auto", "tpe", "gp", "cmaes", "random"]),
    help="what proposes configurations; each learns from divergence; auto: gp for five or more "
    "numbers in up to 200 trials, else tpe (default: tpe)",
)
@click.option(
    "--pruner",
    type=click.Choice(["median", "percentile", "sha", "hyperband", "none"]),
    help="(default: percentile, the best quarter at each epoch goes on)",
)
@click.option(
    "--on_precision_range",
    type=click.Choice(["prune", "rerun"]),
    help="a configuration that only its precision lost: prune it, or rerun it once in the next "
    "wider one (default: prune, a winner must train in the precision asked for)",
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
    from hpo import fleet
    from hpo.display.run import Display
    from hpo.environ import home, storage_url, variables
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
        "sampler": flags["sampler"] or "tpe",
        "pruner": "percentile",
        "on_precision_range": "prune",
    }
    request = fleet.StudyRequest(
        objective=_absolute(flags["objective"]),
        name=flags["study_name"],
        n_trials=flags["n_trials"],
        asked=asked,
        defaults=defaults,
    )
    url = storage_url(flags["storage"])
    prepared = fleet.prepare_study(url, request)
    opened = prepared.opened
    checkpoints = (flags["checkpoint_dir"] or home() / "checkpoints") / opened.uid
    config = fleet.FleetConfig(
        slots=slots,
        checkpoints=checkpoints.absolute(),
        logs=home() / "logs" / opened.uid,
        grace_s=flags["grace"],
        timeout_s=flags["timeout"],
    )
    shown = Display(opened, config)
    shown.begin(prepared, asked=asked, on_gpu=on_gpu)
    stop = stop_on_signals()
    with shown:
        result = fleet.run(prepared, config, LocalLauncher(variables()), emit=shown.show, stop=stop)
    shown.end(result, url=url, is_embedded=flags["storage"] is None)
    if result.is_interrupted:
        ctx.exit(INTERRUPTED)


def _asked(flags: dict[str, Any], options: dict[str, str]) -> dict[str, Any]:
    """The settings of the study that were given explicitly, by their names in its config."""
    named = {"epochs": "epochs_per_trial"}
    names = (
        *("epochs", "space", "size", "precision", "seed", "sampler", "pruner"),
        "on_precision_range",
    )
    values = {name: flags[named.get(name, name)] for name in names}
    asked = {name: value for name, value in values.items() if value not in (None, "auto")}
    return {**asked, "options": options} if options else asked


def _slots(workers: str, per_gpu: int) -> tuple[list[Any], bool]:
    """The slots to run on, and whether they are GPUs."""
    from hpo import slots
    from hpo.environ import visible_gpus

    if workers != "auto" and not (workers.isdecimal() and int(workers) > 0):
        raise ConfigurationError(f"--workers '{workers}' is neither 'auto' nor a number above 0")
    visible = visible_gpus()
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
