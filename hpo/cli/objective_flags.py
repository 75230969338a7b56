"""A command that takes the flags of an objective in addition to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from hpo.cli.config_file import flag_value
from hpo.cli.shared import Command
from objectives import DEFAULT

_META = "hpo.options"
_NAMED = "hpo.objective_is_named"


class ObjectiveCommand(Command):
    """A command with the flags of the objective that its `--objective` names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        self.take_flags(ctx, flag_value(args, "objective"), args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if ctx.meta[_NAMED]:
                raise
            raise click.UsageError(
                f"{error.format_message()} The flags of an objective need --objective beside them.",
                ctx,
            ) from error

    def take_flags(self, ctx: click.Context, objective: str | None, args: Sequence[str]) -> None:
        """Add the objective's flags if a flag is not the command's own, or if help shows them."""
        ctx.meta[_NAMED] = ctx.meta.get(_NAMED, False) or objective is not None
        # Importing an objective takes seconds, so it is done once and only if needed.
        is_shown = objective is not None and not {"-h", "--help"}.isdisjoint(args)
        if _META not in ctx.meta and (is_shown or _has_unknown(args, self, ctx)):
            ctx.meta[_META] = _objective_options(objective or DEFAULT)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get(_META, [])]


def given_options(ctx: click.Context, flags: Mapping[str, Any]) -> dict[str, str]:
    """Return the objective's own options that were given."""
    own = {option.name for option in ctx.meta.get(_META, []) if option.name}
    return {name: flags[name] for name in own if flags.get(name) is not None}


def _has_unknown(args: Sequence[str], command: click.Command, ctx: click.Context) -> bool:
    """Return whether a flag is not the command's own, and so perhaps the objective's."""
    own = {name for param in command.get_params(ctx) for name in param.opts}
    flags = (arg.partition("=")[0].replace("-", "_") for arg in args if arg.startswith("--"))
    return any(f"--{flag[2:]}" not in own for flag in flags)


def _objective_options(spec: str) -> list[click.Parameter]:
    """Declare an objective's own options as flags."""
    from hpo.study.objective import load_objective

    return [
        click.Option(
            [f"--{name}"],
            type=click.Choice(option.choices) if option.choices else str,
            help=f"{option.help} (of this objective; default: {option.default})".strip(),
        )
        for name, option in load_objective(spec).options.items()
    ]
