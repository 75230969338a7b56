"""The public interfaces as Markdown: commands and flags, objectives, the Python interface.

Border: returns texts; `make_reference` puts them into the documents.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from hpo import cli
from hpo.api import run, study, train
from hpo.fleet import events
from hpo.refit import evaluation, evaluation_files, results
from hpo.refit import events as refit_events
from hpo.search.narrowing import kind_of, values_of
from hpo.study import config, request, status
from hpo.study.spaces import by_options
from hpo.tickets import budget
from objectives import Objective, Space, load, names

# A flag's help ends with its default in this form.
_DEFAULT = re.compile(r"\s*\((?:env: \w+; )?default: ([^()]*)\)$")

# Programs import the types that functions return and emit under these names.
_RETURNED: dict[str, type] = {
    "hpo.Best": study.Best,
    "hpo.RunResult": events.RunResult,
    "hpo.fleet.events.Connected": events.Connected,
    "hpo.fleet.events.Looking": events.Looking,
    "hpo.fleet.events.Starting": events.Starting,
    "hpo.fleet.events.Progress": events.Progress,
    "hpo.fleet.events.WorkerEnded": events.WorkerEnded,
    "hpo.fleet.events.Finishing": events.Finishing,
    "hpo.fleet.events.Stopping": events.Stopping,
    "hpo.TrainingResult": results.TrainingResult,
    "hpo.refit.results.SeedResult": results.SeedResult,
    "hpo.Evaluated": evaluation_files.Evaluated,
    "hpo.refit.events.TrainProgress": refit_events.TrainProgress,
    "hpo.refit.events.SeedProgress": refit_events.SeedProgress,
    "hpo.refit.events.SeedEnded": refit_events.SeedEnded,
    "hpo.refit.events.Remark": refit_events.Remark,
    "hpo.refit.events.StoppingSeeds": refit_events.StoppingSeeds,
    "hpo.study.config.StudyConfig": config.StudyConfig,
    "hpo.tickets.budget.Budget": budget.Budget,
    "hpo.study.status.Status": status.Status,
    "hpo.study.status.Lost": status.Lost,
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; an empty cell shows as a dash."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", r"\|") or "-" for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n\n"


def code(text: object) -> str:
    """A text as code; empty where there is none."""
    return f"`{text}`" if text not in ("", None) else ""


def commands() -> str:
    """Every command: its purpose, usage and flags."""
    text = ""
    for title, members in cli._SECTIONS.items():
        listed = (cli.commands.commands[name] for name in members)
        text += f"### {title}\n\n" + "".join(map(_command, listed))
    return text


def _command(command: click.Command) -> str:
    context = click.Context(command, info_name=command.name)
    # \b marks the paragraphs that click must not reflow: the examples.
    parts = inspect.cleandoc(command.help or "").split("\n\n")
    examples = [textwrap.dedent(p.partition(":\n")[2]) for p in parts if p.startswith("\b")]
    prose = [" ".join(p.split()) for p in parts if not p.startswith("\b")]
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option)]
    usage = " ".join(["python -m hpo", command.name or "", *(a.metavar or "" for a in arguments)])
    text = f"#### `{command.name}`\n\n" + "\n\n".join(prose)
    text += "\n\n```sh\n" + "\n".join([f"{usage} [flags]", "", *examples]) + "\n```\n\n"
    rows = [_flag(option, context) for option in options]
    return text + (table(("flag", "value", "what it does", "default", "env"), rows) if rows else "")


def _flag(option: click.Option, context: click.Context) -> Sequence[str]:
    told = option.help or ""
    found = _DEFAULT.search(told)
    default = found[1] if found else "off" if option.is_flag else "none"
    if option.required:
        default = "required"
    return (
        ", ".join(map(code, option.opts)),
        "" if option.is_flag else code(value(option, context)),
        _DEFAULT.sub("", told),
        default,
        code(option.envvar),
    )


def value(option: click.Option, context: click.Context) -> str:
    """The placeholder of a flag's value, as its help shows it."""
    if isinstance(option.type, click.types.IntParamType):
        return option.metavar or "N"
    return option.metavar or option.make_metavar(context).strip("[]")


def objectives() -> str:
    """The objectives of the project: their search spaces and their own flags."""
    return "".join(_objective(load(name)) for name in names())


def _objective(objective: Objective) -> str:
    doc = inspect.getdoc(type(objective)) or ""
    text = (
        f"### `{objective.name}`\n\n{doc.splitlines()[0]} Metric `{objective.metric}`, "
        f"{objective.direction}d; sizes {', '.join(map(code, objective.sizes))}.\n\n"
    )
    for under in by_options(objective):
        text += f"With {code(under.flags)}:\n\n" if under.options else ""
        text += _spaces(under.spaces)
    own = [
        (code(f"--{name}"), code("|".join(option.choices) or "TEXT"), option.help, option.default)
        for name, option in objective.options.items()
    ]
    return text + (
        table(("flag of its own", "value", "what it does", "default"), own) if own else ""
    )


def _spaces(found: Mapping[str, Space]) -> str:
    """The parameters of search spaces, each in a row."""
    rows: list[Sequence[str]] = []
    for name in dict.fromkeys(name for space in found.values() for name in space):
        specs = [space[name] for space in found.values() if name in space]
        cells = [
            values_of(space[name]) if name in space else "not searched" for space in found.values()
        ]
        rows.append((code(name), kind_of(specs[-1]), *cells, f"{specs[-1].default}"))
    return table(("parameter", "kind", *map(code, found), "default"), rows)


def python() -> str:
    """The functions and classes of `hpo`, and the types that they return."""
    text = "".join(_function(f"hpo.{f.__name__}", f) for f in (run.run, study.open, study.best))
    fields = {field.name: field for field in dataclasses.fields(request.RunRequest)}
    names = {"options": "options", **{flag.name: flag.field for flag in run.SETTINGS}}
    trained = _function("hpo.train", train.train)
    trained += _function("hpo.evaluate", evaluation.evaluate)
    rows = [
        (code(flag), code(fields[name].type), code(_default(fields[name])))
        for flag, name in names.items()
    ]
    text += "Further settings of `hpo.run`, by the flags' names:\n\n" + table(
        ("setting", "type", "default"), rows
    )
    text += trained
    text += _class("hpo.Study", study.Study)
    for name, member in vars(study.Study).items():
        if not name.startswith("_"):
            function = member.fget if isinstance(member, property) else member
            text += _function(f"Study.{name}", function, is_property=isinstance(member, property))
    for name, kind in _RETURNED.items():
        text += _class(name, kind)
    return text


def _function(name: str, function: Any, *, is_property: bool = False) -> str:
    signature = inspect.signature(function)
    given, is_keyword = [], False
    for param in signature.parameters.values():
        if param.kind is param.KEYWORD_ONLY and not is_keyword:
            given.append("*")
            is_keyword = True
        stars = "**" if param.kind is param.VAR_KEYWORD else ""
        default = "" if param.default is param.empty else f" = {param.default!r}"
        if param.name != "self":
            given.append(f"{stars}{param.name}: {param.annotation}{default}")
    line = ", ".join(given)
    if len(line) > 70:
        line = "\n    " + ",\n    ".join(given) + ",\n"
    call = "" if is_property else f"({line})"
    return _told(name, f"{name}{call} -> {signature.return_annotation}", function)


def _class(name: str, kind: type) -> str:
    lines = [f"class {kind.__name__}:"]
    if dataclasses.is_dataclass(kind):
        lines += [
            "    " + f"{field.name}: {field.type}".replace("'", '"')
            for field in dataclasses.fields(kind)
        ]
    return _told(name, "\n".join(lines) if len(lines) > 1 else "", kind)


def _default(field: dataclasses.Field[Any]) -> str:
    made = field.default_factory
    return repr(field.default if made is dataclasses.MISSING else made())


def _told(name: str, source: str, documented: Any) -> str:
    summary, _, more = (inspect.getdoc(documented) or "").partition("\n")
    text = f"#### `{name}`\n\n" + (f"{summary}\n\n" if summary else "")
    text += f"```python\n{source}\n```\n\n" if source else ""
    return text + (f"```text\n{more.strip()}\n```\n\n" if more.strip() else "")
