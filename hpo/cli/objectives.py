"""Commands on objectives: `check` tests one against the contract, `objectives` lists them."""

from __future__ import annotations

import json
from typing import Any

import click

from hpo.cli.objective_flags import ObjectiveArgumentCommand, given_options
from hpo.cli.shared import Command, json_option, say
from hpo.errors import ConfigurationError, ObjectiveError
from hpo.machine.slots import torch_device


@click.command(cls=ObjectiveArgumentCommand)
@click.argument("objective", metavar="NAME|module:attr|path.py")
@click.option("--size", metavar="S", help="of the problem (default: as a run on that device)")
@click.option("--space", metavar="S", help="the search space (default: wide, else the first)")
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    multiple=True,
    help="to try a step in; may be repeated (default: all of them)",
)
@click.option("--device", default="cpu", metavar="D", help="the torch device (default: cpu)")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    /,
    objective: str,
    size: str | None,
    space: str | None,
    precisions: tuple[str, ...],
    device: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """Hold an objective against the contract, on one batch and a few steps.

    Flags of the objective itself may follow.

    Each check is ok, a warning, or FAILED with the reason and the cure; the exit code is 2 if any
    failed. Last comes about what a trial will take.

    \b
    Examples:
        python -m hpo check examples/own_objective.py
        python -m hpo check ris_covariance --network unrolled
    """
    say(f"checking {objective}: a few seconds")
    import torch

    from hpo import trust
    from hpo.check.rehearsal import rehearse
    from hpo.display.objectives import print_rehearsed
    from hpo.launch import children
    from hpo.study.request import DEFAULTS
    from objectives import names

    # A worker on a core has one thread, too, so the times are comparable.
    torch.set_num_threads(1)
    with children.ended():
        found = rehearse(
            objective,
            epochs=DEFAULTS["epochs_per_trial"],
            size=size,
            space=space,
            precisions=precisions or ("fp32", "bf16", "fp16"),
            device=torch_device(device),
            options=given_options(ctx, flags),
            in_fresh_process=True,
        )
    if as_json:
        click.echo(json.dumps(found.flat(), indent=2))
    else:
        print_rehearsed(found)
    if found.has_failed:
        ctx.exit(ConfigurationError.exit_code)
    if objective not in names():
        trust.name("objective", objective)


@click.command(cls=Command)
@click.argument("objective", metavar="[NAME|module:attr|path.py]", required=False)
@json_option
def objectives(objective: str | None, as_json: bool) -> None:
    """List the objectives that come along, or show one: its search spaces, options and sizes.

    \b
    Examples:
        python -m hpo objectives
        python -m hpo objectives ris_covariance
    """
    say("reading objectives")
    from hpo.display.objectives import as_data, print_objective, print_objectives
    from hpo.study.declared import declared
    from hpo.study.objective import load_objective
    from objectives import names

    chosen = names() if objective is None else [objective]
    found = {spec: load_objective(spec) for spec in chosen}
    for spec, one in found.items():
        for finding in declared(one):
            if finding.state == "failed":
                raise ObjectiveError(f"objective '{spec}': {finding.detail}")
    if as_json:
        shown: list[dict[str, Any]] = [as_data(one) for one in found.values()]
        click.echo(json.dumps(shown if objective is None else shown[0], indent=2))
    elif objective is None:
        print_objectives(found.values())
    else:
        print_objective(found[objective])
