"""A command that takes the flags of an objective in addition to its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import click

from hpo.cli.config_file import flag_value
from hpo.cli.shared import Command
from hpo.errors import ObjectiveError
from objectives import DEFAULT

_META = "hpo.options"
_NAMED = "hpo.objective_is_named"
# Options by their names, each by its fields.
Declared = Mapping[str, Mapping[str, Any]]


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
        if objective is not None:
            _refuse_missing(str(objective))
        # Importing an objective takes seconds, so it is done once and only if needed.
        is_shown = objective is not None and not {"-h", "--help"}.isdisjoint(args)
        if _META not in ctx.meta and (is_shown or _has_unknown(args, self, ctx)):
            ctx.meta[_META] = _flags(self.options_of(objective or DEFAULT))

    def options_of(self, spec: str) -> Declared:
        """The options that an objective declares; its code stays in this process."""
        return options_here(spec)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get(_META, [])]


class ObjectiveArgumentCommand(ObjectiveCommand):
    """A command with the flags of the objective that is its argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from hpo.study.objective import is_missing

        # A flag's value, as a size, is no objective.
        named = [arg for arg in args if not arg.startswith("-") and not is_missing(arg)]
        if named:
            self.take_flags(ctx, named[0], args)
        return Command.parse_args(self, ctx, args)


def given_options(ctx: click.Context, flags: Mapping[str, Any]) -> dict[str, str]:
    """Return the objective's own options that were given."""
    own = {option.name for option in ctx.meta.get(_META, []) if option.name}
    return {name: flags[name] for name in own if flags.get(name) is not None}


def _has_unknown(args: Sequence[str], command: click.Command, ctx: click.Context) -> bool:
    """Return whether a flag is not the command's own, and so perhaps the objective's."""
    own = {name for param in command.get_params(ctx) for name in param.opts}
    flags = (arg.partition("=")[0].replace("-", "_") for arg in args if arg.startswith("--"))
    return any(f"--{flag[2:]}" not in own for flag in flags)


def _refuse_missing(spec: str) -> None:
    """Refuse an objective that is not there, before anything is started for it."""
    from hpo.study.objective import is_missing, load_objective

    if is_missing(spec):
        load_objective(spec)


def _flags(options: Declared) -> list[click.Parameter]:
    """Declare an objective's own options as flags."""
    return [
        click.Option(
            [f"--{name}"],
            type=click.Choice(option["choices"]) if option["choices"] else str,
            help=f"{option['help']} (of this objective; default: {option['default']})".strip(),
        )
        for name, option in options.items()
    ]


def options_here(spec: str) -> Declared:
    """The options that an objective declares, read by its import."""
    from hpo.study.objective import load_objective

    options = load_objective(spec).options
    return {name: asdict(option) for name, option in options.items()}


def options_elsewhere(spec: str) -> Declared:
    """The options that an objective declares, read by a process that ends after it.

    So a process that needs no more of it holds neither its code nor torch.
    """
    if "torch" in sys.modules or not hasattr(os, "fork"):
        return options_here(spec)
    from hpo.study.described import as_data, raise_again

    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = {"found": options_here(spec)}
        except BaseException as error:
            answer = {"raised": as_data(error)}
        with suppress(BaseException), os.fdopen(said, "w", encoding="utf-8") as file:
            json.dump(answer, file)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        # What this process does at its exit is not done here.
        os._exit(0)
    os.close(said)
    with os.fdopen(heard, encoding="utf-8") as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    if not text:
        code = os.waitstatus_to_exitcode(status)
        raise ObjectiveError(
            f"objective '{spec}' cannot be imported: its process ended with code {code}"
        )
    answer = json.loads(text)
    if "raised" in answer:
        raise_again(answer["raised"])
    found: Declared = answer["found"]
    return found
