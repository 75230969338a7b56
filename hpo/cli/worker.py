"""`worker`: run one worker of an existing study."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from hpo.cli.run_flags import named
from hpo.cli.shared import Command, stop_on_signals, storage_option
from hpo.errors import RunFailed, StorageError


@click.command(cls=Command)
@click.option("--study_name", required=True, metavar="NAME", help="the study to work on")
@storage_option
@click.option("--slot", default="cpu:0", help="how this worker is called (default: cpu:0)")
@click.option("--device", default="cpu", help="the torch device (default: cpu)")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, help="CPU threads of torch (default: 1)"
)
@click.option(
    "--checkpoint_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="where checkpoints go; the fleet's workers share one (default: below HPO_HOME)",
)
@click.option(
    "--objective",
    metavar="NAME|module:attr|path.py",
    help="where the study's objective is on this host (default: where the study says)",
)
@named("predictions")
@named("predictions_every")
@click.option(
    "--with_parent", type=int, metavar="PID", help="stop when this parent process is gone"
)
def worker(
    study_name: str,
    storage: str | None,
    slot: str,
    device: str,
    threads: int,
    checkpoint_dir: Path | None,
    objective: str | None,
    predictions: str,
    predictions_every: str,
    with_parent: int | None,
) -> None:
    """Run one worker of a study that exists; what every launcher runs, on any host.

    \b
    Example:
        HPO_STORAGE=postgresql+psycopg2://me:secret@db/hpo python -m hpo worker \\
            --study_name ris_covariance-wide-full --slot gpu:0 --device cuda
    """
    import platform
    import resource
    import time

    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {slot} | %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger(__name__).info("worker of study '%s' starts", study_name)
    import torch

    from hpo.database.connection import connect
    from hpo.database.patience import with_retries
    from hpo.engine.recording import Recording
    from hpo.environ import home, storage_url
    from hpo.study.study import open_study
    from hpo.worker.heartbeat import watch_parent
    from hpo.worker.worker import Worker, WorkerConfig

    stop = stop_on_signals()
    if with_parent is not None:
        watch_parent(with_parent, stop)
    torch.set_num_threads(threads)
    url = storage_url(storage)
    try:
        db = with_retries(
            lambda: connect(url, application=slot, needs_writes=True, connections=2, kept=2)
        )
        opened = with_retries(lambda: open_study(db, study_name))
    except StorageError as error:
        # A storage error would exit with 2, misconfigured; after a 1 the fleet may restart it.
        raise RunFailed(str(error)) from error
    config = WorkerConfig(
        name=f"{platform.node()}/{slot}",
        slot=slot,
        device=device,
        objective=objective,
        recording=Recording.of(predictions, predictions_every),
        checkpoints=checkpoint_dir or home() / "checkpoints" / opened.uid,
    )
    runner = Worker(config, opened, db, stop)
    started_cpu_s = time.process_time()
    runner.run()
    logging.getLogger(__name__).info(
        "CPU: start %.1f s, training and validation %.1f s, the rest %.1f s; peak memory %d MB",
        started_cpu_s,
        runner.training_cpu_s,
        time.process_time() - started_cpu_s - runner.training_cpu_s,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )
