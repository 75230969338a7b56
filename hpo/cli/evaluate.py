"""`evaluate`: measure a finished training against other methods and bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hpo.cli.shared import INTERRUPTED, Command, Whole, json_option, say, stop_on_signals


@click.command(cls=Command)
@click.argument("path", metavar="FILE|FOLDER", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="on fewer samples: under a minute at the tiny size")
@click.option(
    "--scenes",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="evaluate on these samples, simulated or measured, in place of the frozen test set",
)
@click.option(
    "--seed",
    type=Whole(min=0),
    default=0,
    metavar="N",
    help="of the test set; 0 is the frozen one, others are fresh draws (default: 0)",
)
@click.option("--size", metavar="SIZE", help="refuse a training of another size")
@click.option(
    "--objective",
    metavar="NAME|module:attr|path.py",
    help="where the training's objective is here (default: where it was then)",
)
@click.option(
    "--device", default="cpu", metavar="cpu|cuda|cuda:1", help="the torch device (default: cpu)"
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="the folder for tables and figures (default: evaluation beside the file)",
)
@json_option
@click.pass_context
def evaluate(ctx: click.Context, /, path: Path, **flags: Any) -> None:
    """Measure a finished training against other methods and bounds: tables and figures.

    FILE is one that `train` wrote; of its FOLDER the best seed is taken. What is measured, the
    objective says: ris_covariance compares positions with classical estimators and the Cramér-Rao
    bound, by SNR, by the number of sources and by range.

    \b
    Examples:
        python -m hpo evaluate trained/ris_covariance-wide-tiny-trial_00044
        python -m hpo evaluate seed_0.pt --quick --json
        python -m hpo evaluate seed_0.pt --scenes measured.npz --out measured
    """
    say(f"evaluating {path}")
    stop = stop_on_signals()
    import torch

    from hpo.display.evaluate import Telling, print_evaluated
    from hpo.launch import children
    from hpo.refit import evaluation, evaluation_files
    from hpo.study.objective import in_words

    # The many small products gain nothing from more threads, and lose much where cores are shared.
    torch.set_num_threads(1)
    prepared = evaluation_files.prepared(path, flags["out"])
    with prepared as folder, Telling() as telling, children.ended():
        try:
            found = evaluation.evaluate(
                path,
                quick=flags["quick"],
                samples=flags["scenes"],
                seed=flags["seed"],
                size=flags["size"],
                objective=flags["objective"],
                device=flags["device"],
                tell=telling.tell,
                must_stop=stop.is_set,
            )
        except InterruptedError as error:
            say(str(error))
            ctx.exit(INTERRUPTED)
    if found.changed:
        say(f"note: {in_words(found.changed)} since the training")
    if flags["as_json"]:
        click.echo(json.dumps(found.flat(), indent=2, default=str))
    else:
        print_evaluated(found)
    # The files come after the result, which a full disk must not hide.
    files = evaluation_files.write(found, folder)
    say(f"{len(files)} files in {folder}: {', '.join(file.name for file in files)}")
