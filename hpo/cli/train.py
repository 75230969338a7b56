"""`train`: train a configuration at full length over several seeds; `train_seed`: one seed."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click

from hpo.cli.objective_flags import ObjectiveCommand, given_options
from hpo.cli.shared import (
    INTERRUPTED,
    Number,
    Whole,
    json_option,
    say,
    stop_on_signals,
    storage_option,
    study_option,
    uncollected,
    workers_of,
)
from hpo.study.request import FLAGS


@click.command(cls=ObjectiveCommand)
@click.argument(
    "file", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, path_type=Path)
)
@study_option
@storage_option
@click.option(
    "--trial",
    type=Whole(min=0),
    metavar="N",
    help="train this trial's configuration (default: the best one's)",
)
@click.option(
    "--epochs",
    type=Whole(min=1),
    default=100,
    metavar="N",
    help="of each seed, over which the learning rate falls to 0 (default: 100)",
)
@click.option(
    "--seeds",
    type=Whole(min=1),
    default=3,
    metavar="K",
    help="trainings that differ in initialization and draws alone, seeds 0 to K-1; a larger number "
    "later adds some (default: 3)",
)
@click.option(
    "--precision",
    type=click.Choice(next(flag.choices for flag in FLAGS if flag.name == "precision")),
    default="auto",
    help="of the forward pass; one that is not fp32 has seed 0 trained in fp32, too (default: "
    "auto, the trial's own, but fp32 for fp16 on a CPU)",
)
@click.option(
    "--ema",
    "ema_decay",
    type=Number(min=0, max=1, max_open=True),
    default=0.999,
    metavar="DECAY",
    help="of the averaged weights that are validated and written; 0 takes the last weights "
    "(default: 0.999)",
)
@click.option(
    "--objective",
    metavar="NAME|module:attr|path.py",
    help="where the objective is here, or what a FILE written by hand is for (default: what the "
    "study or the FILE says)",
)
@click.option(
    "--size", metavar="auto|tiny|base|full", help="of the problem (default: auto, the study's)"
)
@click.option(
    "--space",
    metavar="narrow|wide",
    help="the search space that a FILE written by hand is of (default: wide)",
)
@click.option(
    "--device", metavar="cpu|cuda|cuda:1", help="the torch device (default: the GPUs, else the CPU)"
)
@click.option(
    "--workers",
    metavar="N|auto",
    default="auto",
    help="seeds that train at once (default: auto, one a GPU, else one a usable core)",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="the folder of the results (default: trained/STUDY-trial_NUMBER)",
)
@click.option(
    "--force", is_flag=True, help="start over where the folder holds another training, or this one"
)
@json_option
@click.pass_context
def train(ctx: click.Context, /, **flags: Any) -> None:
    """Train the best configuration of a study at full length, over several seeds.

    Or that of --trial N, or the one in FILE, as `best --save FILE` writes it: that needs no
    database. The learning rate warms up over the first 2 % of the steps and falls to 0 along a
    cosine; what is validated and written are averaged weights. Each seed is a process of its own.

    Interrupted, the same command goes on from the checkpoints; finished seeds are not repeated.
    The folder then holds seed_0.pt and so on, curves.png, training.csv and training.json.

    \b
    Examples:
        python -m hpo train
        python -m hpo train --trial 17 --epochs 200 --seeds 5
        python -m hpo best --save best.json && python -m hpo train best.json --out final
        python -m hpo train mine.json --objective quadratic --precision bf16

    With --objective, --help shows the objective's own flags, too; they override the study's.
    """
    workers = workers_of(flags["workers"])
    best = "the best trial" if flags["trial"] is None else f"trial {flags['trial']}"
    say(f"training {flags['file'] or best}")

    from hpo.api.train import resolve
    from hpo.display.train import TrainDisplay, print_training
    from hpo.environ import variables
    from hpo.launch.local import LocalLauncher
    from hpo.refit import crew
    from hpo.refit.request import TrainRequest

    same = ("objective", "size", "space", "epochs", "seeds", "precision", "ema_decay")
    request = TrainRequest(
        **{name: flags[name] for name in same},
        options=given_options(ctx, flags),
    )
    where = {name: flags[name] for name in ("file", "trial", "storage", "device", "out", "force")}
    recipe, config = resolve(request, study=flags["study_name"], workers=workers, **where)
    shown = TrainDisplay(recipe, config)
    shown.begin()
    stop = stop_on_signals()
    with shown:
        launcher = LocalLauncher(variables())
        result = crew.train(recipe, config, launcher, emit=shown.show, stop=stop)
    shown.end(result)
    if flags["as_json"]:
        click.echo(json.dumps(result.flat(), indent=2))
    else:
        print_training(result)
    if result.is_interrupted:
        ctx.exit(INTERRUPTED)


@click.command("train_seed", hidden=True)
def train_seed() -> None:
    """Train one seed: what `train` starts on each slot, with its job on standard input."""
    import os

    from hpo.launch import children

    # Events get a duplicate of stdout, and prints of an objective go to stderr, not between them.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def emit(event: str, values: dict[str, Any]) -> None:
        with lock:
            try:
                events.write(json.dumps({"event": event, **values}) + "\n")
            except BrokenPipeError:
                # The parent is gone; `_watch_input` sees the same at the end of the input.
                stop.set()

    class Remarks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emit("remark", {"text": record.getMessage()})

    stop = stop_on_signals()
    line = sys.stdin.readline()

    children.take_charge()
    threading.Thread(target=_watch_input, args=(stop,), daemon=True).start()
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)
    logging.getLogger("hpo").addHandler(Remarks(level=logging.WARNING))

    with uncollected():
        import torch

        from hpo.refit.seed_process import Job, train_seed
        from hpo.task import compiler

    compiler.defer()
    torch.set_num_threads(1)
    try:
        train_seed(Job.read(line), emit, stop)
    finally:
        children.end()


def _watch_input(stop: threading.Event) -> None:
    """Set `stop` at the end of the input; end this process if its parent was killed."""
    import os
    import signal

    from hpo.launch import children

    parent = os.getppid()
    # `os.read` takes no lock; a thread waiting in sys.stdin would hold its lock at exit.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stop.set()
    # A living parent has a grace of its own.
    while os.getppid() == parent:
        time.sleep(1.0)
    # A step that hangs hears of no stop, and no one is left to kill it.
    time.sleep(children.ABANDONED_S)
    children.end()
    os.kill(os.getpid(), signal.SIGKILL)
