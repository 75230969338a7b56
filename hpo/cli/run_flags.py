"""The flags of `run`: its own, the objective's, and those of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from hpo.cli.config_file import flag_value, read_config, refuse_unknown
from hpo.cli.objective_flags import ObjectiveCommand
from hpo.cli.shared import (
    json_option,
    predictions_every_option,
    predictions_option,
    storage_option,
)
from hpo.study.request import CHOICES
from objectives import DEFAULT


class RunCommand(ObjectiveCommand):
    """`run`, with the flags of the objective that it is asked for beside its own, and a file's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = flag_value(args, "config")
        path = Path(given) if given else None
        config = read_config(path) if path else {}
        objective = flag_value(args, "objective") or config.get("objective")
        self.take_flags(ctx, objective, [*args, *(f"--{name}" for name in config)])
        if path:
            names = {_flag(param): param.name for param in self.get_params(ctx) if param.name}
            refuse_unknown(config, [flag for flag in names if flag != "config"], path)
            config = {names[flag]: value for flag, value in config.items()}
            ctx.default_map = config
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            name = error.param.name if error.param and error.param.name else ""
            if name not in config or flag_value(args, _flag(error.param)) is not None:
                raise
            where = f"{error.message} (in '{path}')"
            raise click.BadParameter(where, error.ctx, error.param) from error


def _flag(param: click.Parameter | None) -> str:
    """A parameter's name on the command line."""
    return param.opts[0].removeprefix("--") if param else ""


class _NameOrAttribute(click.Choice[str]):
    """One of some names, or `module:attr`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and ":" in value:
            return value
        return super().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join([*self.choices, "module:attr"])


_FLAGS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--n_trials",
        type=click.IntRange(min=1),
        metavar="N",
        help="the study's total of trials, over all workers and runs (default: the study's, "
        "else 50)",
    ),
    click.option(
        "--objective",
        metavar="NAME|module:attr|path.py",
        help=f"what to optimize (default: the study's, else {DEFAULT})",
    ),
    click.option(
        "--epochs_per_trial",
        type=click.IntRange(min=1),
        metavar="N",
        help="after each of which a trial is validated and perhaps pruned (default: 12)",
    ),
    click.option("--space", metavar="narrow|wide", help="the search space (default: wide)"),
    click.option(
        "--size",
        metavar="auto|tiny|base|full",
        help="of the problem (default: auto, full on a GPU and tiny on a CPU)",
    ),
    click.option(
        "--precision",
        type=click.Choice(CHOICES["precision"]),
        help="of the forward pass (default: auto, fp16 on a GPU and fp32 on a CPU)",
    ),
    click.option(
        "--study_name", metavar="NAME", help="created or resumed (default: objective-space-size)"
    ),
    storage_option,
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help="flags from a file, its keys their names; flags on the command line win",
    ),
    click.option(
        "--set",
        "fixed",
        multiple=True,
        metavar="NAME=VALUE",
        help="fix a parameter in place of searching it; can be repeated",
    ),
    click.option(
        "--range",
        "ranges",
        multiple=True,
        metavar="NAME=LOW,HIGH[,log]",
        help="search a parameter in less than its range; can be repeated",
    ),
    click.option(
        "--enqueue",
        type=click.Path(path_type=Path),
        metavar="FILE.json",
        help="configurations to try next, whole or in part: an object, a list of them, or a file "
        "of 'best --save'",
    ),
    click.option(
        "--sampler",
        type=_NameOrAttribute(["auto", "tpe", "gp", "cmaes", "random"]),
        help="what proposes configurations; each learns from divergence; auto: gp for five or more "
        "numbers in up to 200 trials, else tpe (default: tpe)",
    ),
    click.option(
        "--pruner",
        type=_NameOrAttribute(["median", "percentile", "sha", "hyperband", "none"]),
        help="what ends trials early (default: percentile, the best quarter at each epoch goes on)",
    ),
    click.option(
        "--on_precision_range",
        type=click.Choice(CHOICES["on_precision_range"]),
        help="a configuration that only its precision lost: prune it, or rerun it once in the next "
        "wider one (default: prune, a winner must train in the precision asked for)",
    ),
    click.option(
        "--seed", type=int, help="of search, initialization and training draws (default: 0)"
    ),
    click.option(
        "--force",
        is_flag=True,
        help="go on with a study that was created with something else; recorded on the trials that "
        "follow, in their attribute 'forced'",
    ),
    click.option(
        "--workers",
        metavar="N|auto",
        default="auto",
        help="worker processes (default: auto, one a GPU, else one a usable core)",
    ),
    click.option(
        "--workers_per_gpu",
        type=click.IntRange(min=1),
        default=1,
        metavar="K",
        help="workers that share a GPU (default: 1)",
    ),
    click.option("--gpus", metavar="0,2", help="the GPUs to use (default: all that are visible)"),
    click.option(
        "--timeout", type=click.FloatRange(min=1), metavar="S", help="wall time, then as Ctrl-C"
    ),
    click.option(
        "--grace",
        type=click.FloatRange(min=0),
        default=30.0,
        metavar="S",
        help="seconds that workers have to stop before they are killed (default: 30)",
    ),
    click.option(
        "--checkpoint_dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="checkpoints of running trials and of the best (default: below HPO_HOME)",
    ),
    predictions_option,
    predictions_every_option,
    click.option(
        "--export_csv",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="write all trials as a table at the end, also when interrupted",
    ),
    json_option,
    click.option(
        "--verbose", is_flag=True, help="a line for each trial; the traceback of an error"
    ),
    click.option("--quiet", is_flag=True, help="nothing on stderr but errors"),
    click.option("--log_json", is_flag=True, help="progress on stderr as a JSON object a line"),
)


def run_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Declare all flags of `run` on a function."""
    for flag in reversed(_FLAGS):
        function = flag(function)
    return function
