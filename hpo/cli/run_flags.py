"""The flags of `run`: its own, the objective's, and those from a file (`--config`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from hpo.cli import slurm_options
from hpo.cli.config_file import flag_value, read_config, refuse_unknown
from hpo.cli.objective_flags import Declared, ObjectiveCommand, options_elsewhere
from hpo.cli.shared import Number, Whole, json_option, storage_option
from hpo.study.request import FLAGS, Flag

# Where a command's context keeps the options for sbatch.
SLURM = "hpo.slurm"


class RunCommand(ObjectiveCommand):
    """The command `run`, with the flags of its objective, and defaults from a file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = flag_value(args, "config")
        path = Path(given) if given else None
        args, slurm = slurm_options.taken_out(args)
        config, also = slurm_options.of_file(read_config(path) if path else {})
        ctx.meta[SLURM] = {**also, **slurm}
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

    def options_of(self, spec: str) -> Declared:
        return options_elsewhere(spec)


def _flag(param: click.Parameter | None) -> str:
    """Return a parameter's name on the command line."""
    return param.opts[0].removeprefix("--") if param else ""


class _NameOrAttribute(click.Choice[str]):
    """A choice of names that also accepts `module:attr`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and ":" in value:
            return value
        return super().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join([*self.choices, "module:attr"])


def option_of(flag: Flag) -> Callable[[Any], Any]:
    """Make the command-line option that a flag of `run` declares."""
    names, help = (f"--{flag.name}",), flag.help
    if flag.kind == "switch":
        return click.option(*names, is_flag=True, help=help)
    if flag.kind == "pairs":
        return click.option(*names, multiple=True, metavar=flag.metavar, help=help)
    default = {"workers": "auto", "names": None, "file": None}.get(flag.kind, flag.default)
    if flag.kind == "text" and default is not None:
        default = str(default)
    return click.option(
        *names, type=_type_of(flag), metavar=flag.metavar, default=default, help=help
    )


def _type_of(flag: Flag) -> Any:
    """The type of click's that converts and checks a flag's value."""
    match flag.kind:
        case "count":
            return Whole(min=1)
        case "integer":
            return int
        case "seconds" | "number":
            return Number(min=flag.at_least or 0)
        case "hours":
            return Number(min=0, min_open=True)
        case "choice":
            return click.Choice(flag.choices)
        case "plugin":
            return _NameOrAttribute(flag.choices)
        case "file":
            return click.Path(path_type=Path)
    return str


def named(name: str) -> Callable[[Any], Any]:
    """Make the option of a flag of `run`, for another command that shares it."""
    return option_of(next(flag for flag in FLAGS if flag.name == name))


_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="flags from a file, its keys their names; flags on the command line win",
)
_OUTPUT: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--dry_run",
        is_flag=True,
        help="print the script of --launcher slurm; no job is submitted and no study created",
    ),
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


def _options() -> list[Callable[[Any], Any]]:
    """Return all options of `run`, in the order of its help."""
    options: list[Callable[[Any], Any]] = []
    for flag in FLAGS:
        options.append(option_of(flag))
        if flag.name == "study_name":
            options += [storage_option, _CONFIG]
    return [*options, *_OUTPUT]


def run_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Declare all flags of `run` on a function."""
    for option in reversed(_options()):
        function = option(function)
    return function
