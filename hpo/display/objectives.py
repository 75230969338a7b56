"""Objectives on the terminal: their search spaces, and the findings of `check`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from hpo.check.rehearsal import Pace, Rehearsed
from hpo.display.console import duration, results, state_line
from hpo.search.narrowing import kind_of, values_of
from hpo.study.spaces import by_options, depends_on_options
from objectives import Objective, Space


def print_rehearsed(found: Rehearsed) -> None:
    """Print the checks of an objective against the contract, and the time of a trial."""
    width = max(len(finding.name) for finding in found.findings)
    for finding in found.findings:
        results.print(state_line(finding.state, f"{finding.name:<{width}}  {finding.detail}"))
    if found.pace is not None:
        _print_pace(found, found.pace)
    else:
        results.print("\nmend what FAILED and check again; what depends on it was not tried")


def _print_pace(found: Rehearsed, pace: Pace) -> None:
    results.print(
        f"\nsize {found.size}, space {found.space}, {found.precision}: {pace.parameters:,} "
        f"parameters, {pace.step_s * 1e3:.3g} ms a step, {pace.validation_s * 1e3:.3g} ms a "
        f"validation"
    )
    results.print(
        f"a trial of {pace.steps} steps takes about {duration(pace.trial_s)} with the default "
        "configuration"
    )
    results.print(f"next: {found.next_command}")


def print_objectives(found: Iterable[Objective]) -> None:
    """Print the objectives that come with the project."""
    table = Table("objective", "metric", "sizes", "what it is", box=None)
    for one in found:
        metric = f"{one.metric}, {one.direction}"
        table.add_row(one.name, metric, ", ".join(one.sizes), _about(one))
    results.print(table)


def print_objective(one: Objective) -> None:
    """Print an objective: its sizes, options and search spaces."""
    results.print(Text.assemble((one.name, "bold"), f"  {_about(one)}"))
    results.print(f"metric   {one.metric}, {one.direction}")
    results.print(f"sizes    {', '.join(one.sizes)}")
    for name, option in one.options.items():
        choices = f" {'|'.join(option.choices)}" if option.choices else ""
        about = f"{option.help} " if option.help else ""
        results.print(f"option   --{name}{choices}  {about}(default: {option.default})")
    for under in by_options(one):
        for name, space in under.spaces.items():
            results.print()
            title = " ".join(filter(None, (f"space {name}", under.flags)))
            table = Table(title, "kind", "values", "default", box=None)
            for parameter, spec in space.items():
                table.add_row(parameter, kind_of(spec), values_of(spec), str(spec.default))
            results.print(table)


def as_data(one: Objective) -> dict[str, Any]:
    """Return an objective as plain data for JSON."""
    found = by_options(one)
    more: dict[str, Any] = {}
    if depends_on_options(one):
        more["spaces_by_options"] = [
            {"options": dict(under.options), "spaces": _spaces(under.spaces)} for under in found
        ]
    return {
        "name": one.name,
        "about": _about(one),
        "metric": one.metric,
        "direction": one.direction,
        "sizes": list(one.sizes),
        "options": {name: asdict(option) for name, option in one.options.items()},
        "spaces": _spaces(one.spaces),
        **more,
    }


def _spaces(spaces: Mapping[str, Space]) -> dict[str, Any]:
    return {
        name: {
            parameter: {"kind": type(spec).__name__.lower(), **asdict(spec)}
            for parameter, spec in space.items()
        }
        for name, space in spaces.items()
    }


def _about(one: Objective) -> str:
    """Return the first line of the docstring of the objective's file, else of its class."""
    module = inspect.getmodule(type(one))
    text = (module.__doc__ if module else None) or type(one).__doc__ or ""
    return text.strip().partition("\n")[0]
