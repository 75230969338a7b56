"""`scenes`: write samples of an objective's simulator to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpo.cli.objective_flags import ObjectiveCommand, given_options
from hpo.cli.shared import INTERRUPTED, Whole, say, stop_on_signals
from hpo.errors import ConfigurationError
from objectives import DEFAULT

_COUNT = 10_000


@click.command(cls=ObjectiveCommand)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--objective",
    default=DEFAULT,
    metavar="NAME|module:attr|path.py",
    help=f"whose simulator (default: {DEFAULT})",
)
@click.option("--size", metavar="S", help="of the problem (default: as a run on a CPU)")
@click.option(
    "--count",
    type=Whole(min=1),
    default=_COUNT,
    metavar="N",
    help=f"how many (default: {_COUNT})",
)
@click.option(
    "--stream",
    type=click.Choice(["train", "test"]),
    default="train",
    help="which draws; no trial draws any of either (default: train)",
)
@click.option("--seed", type=Whole(min=0), default=0, metavar="N", help="of the draws (default: 0)")
@click.option("--half", is_flag=True, help="in half precision: half the size")
@click.option("--force", is_flag=True, help="write over a file that is there")
@click.pass_context
def scenes(ctx: click.Context, /, path: Path, **flags: Any) -> None:
    """Write samples of an objective's simulator to a file, to train and evaluate on elsewhere.

    The file appears when it is whole. With --objective, --help shows the objective's own flags.

    \b
    Examples:
        python -m hpo scenes train.npz --count 100000
        python -m hpo scenes test.npz --stream test --half --installation random
        python -m hpo --size tiny --scenes train.npz --objective ris_covariance
    """
    from hpo.files import refuse_unwritable

    refuse_unwritable(path, flag="FILE")
    if path.exists() and not flags["force"]:
        raise ConfigurationError(f"'{path}' is there already; write --force to replace it (FILE)")
    name, count = flags["objective"], flags["count"]
    import torch

    from hpo.study.objective import load_objective
    from hpo.study.request import usual
    from objectives import Context

    # A worker on a core has one thread, too.
    torch.set_num_threads(1)
    objective = load_objective(name)
    usually = usual(on_gpu=False)
    size = flags["size"]
    if size is None:
        size = usually["size"] if usually["size"] in objective.sizes else objective.sizes[0]
    if size not in objective.sizes:
        raise ConfigurationError(
            f"objective '{name}' has no size '{size}'; use one of "
            f"{', '.join(objective.sizes)} (--size)"
        )
    say(f"writing {count:,} samples of {name} to {path}")
    stop = stop_on_signals()
    options = {name: option.default for name, option in objective.options.items()}
    context = Context(
        device=torch.device("cpu"),
        size=size,
        epochs=1,
        seed=flags["seed"],
        problem_seed=objective.problem_seed(size),
        options={**options, **given_options(ctx, flags)},
        must_stop=stop.is_set,
    )
    how = {key: flags[key] for key in ("count", "stream", "half")}
    try:
        written = objective.write_samples(path, context, **how, tell=say)
    except InterruptedError as error:
        say(f"{error}; nothing is left of '{path}'")
        ctx.exit(INTERRUPTED)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"'{path}' cannot be written: {reason} (FILE)") from error
    except ValueError as error:
        raise ConfigurationError(f"objective '{name}': {error}") from error
    if written is None:
        raise ConfigurationError(
            f"objective '{name}' has no simulator to write samples of (--objective)"
        )
    click.echo(f"{path} ({path.stat().st_size / 1e6:,.1f} MB): {written}")
