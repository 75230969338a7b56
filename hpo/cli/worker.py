"""`worker`: run one worker of an existing study."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.first_look import Run, serve
from hpo.cli.run_flags import named
from hpo.cli.shared import (
    STOPS,
    Command,
    Number,
    Whole,
    stop_on_signals,
    storage_option,
    uncollected,
)
from hpo.errors import RunFailed, StorageError

if TYPE_CHECKING:
    from hpo.worker.pulse import Pulse
    from hpo.worker.supervisor import Ending


@click.command(cls=Command)
@click.option("--study_name", metavar="NAME", help="the study to work on")
@storage_option
@click.option("--slot", default="cpu:0", help="how this worker is called (default: cpu:0)")
@click.option("--device", default="cpu", help="the torch device (default: cpu)")
@click.option("--threads", type=Whole(min=1), default=1, help="CPU threads of torch (default: 1)")
@click.option(
    "--checkpoint_dir",
    metavar="FOLDER|URL|database",
    help="where checkpoints go, for other hosts, too: a folder that they share, a URL as "
    "s3://BUCKET/FOLDER, or the database (default: database; with the embedded server, "
    "below HPO_HOME)",
)
@click.option("--checkpoint_folder", type=click.Path(file_okay=False, path_type=Path), hidden=True)
@click.option(
    "--objective",
    metavar="NAME|module:attr|path.py",
    help="where the study's objective is on this host (default: where the study says)",
)
@click.option("--sampler", metavar="module:attr", help="allow this sampler of the study's here")
@click.option("--pruner", metavar="module:attr", help="allow this pruner of the study's here")
@named("predictions")
@named("predictions_every")
@named("stall")
@named("trial_timeout")
@named("patience")
@named("grace")
@named("fresh_process")
@named("allow_mixed")
@click.option(
    "--gpu_share",
    type=Number(min=0, max=64),
    default=1.0,
    help="GPUs that count for --max_gpu_hours while it trains on one; .5 where two workers share "
    "it (default: 1)",
)
@click.option(
    "--with_parent", type=int, metavar="PID", help="stop when this parent process is gone"
)
@click.option("--first", is_flag=True, hidden=True)
@click.pass_context
def worker(
    ctx: click.Context,
    /,
    slot: str,
    stall: float | None,
    with_parent: int | None,
    sampler: str | None,
    pruner: str | None,
    first: bool,
    **flags: Any,
) -> None:
    """Run one worker of a study that exists; what every launcher runs, on any host.

    It is two processes: the one that trains, and above it one that ends it when it hangs and notes
    why it ended. Exit code 3 means that a trial ended it; another worker may start at once.

    \b
    Example:
        HPO_STORAGE=postgresql+psycopg2://me:secret@db/hpo python -m hpo worker \\
            --study_name ris_covariance-wide-full --slot gpu:0 --device cuda
    """
    if flags["study_name"] is None and not first:
        raise click.UsageError("Missing option '--study_name'.", ctx)
    from hpo.worker import rotation

    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {slot} | %(message)s",
        handlers=[rotation.Handler()],
    )
    if with_parent is not None:
        rotation.begin()
    name = flags["study_name"] or "to be"
    logging.getLogger(__name__).info("worker of study '%s' starts", name)
    from hpo.worker.pulse import Pulse
    from hpo.worker.supervisor import SPENT, Supervisor, finish

    _allow(sampler, pruner)
    pulse = Pulse(stall)
    supervisor = Supervisor(pulse, parent=with_parent)
    run = Run() if first else None
    while True:
        if supervisor.fork() == 0:
            if run is not None:
                flags |= _joined(pulse, run, supervisor.pid, **flags)
            is_launched = with_parent is not None
            is_spent = _train(
                pulse, parent=supervisor.pid, slot=slot, is_launched=is_launched, **flags
            )
            ctx.exit(SPENT if is_spent else 0)
        if run is not None:
            run.follow_log()
        ending = supervisor.wait()
        # Where it is not the service's, an objective has ended its process with this code.
        if not (ending.is_spent and flags["fresh_process"]) or run is not None:
            break
        if supervisor.must_stop:
            ctx.exit(0)
    if run is not None:
        # The run knows of it already, unless the process ended in the look.
        run.say(ended=ending.cause)
    # Who asked it to stop waits for it, and gives its ticket back if the database is away.
    patience_s = 0.0 if supervisor.must_stop else flags["patience"]
    ctx.exit(finish(ending, lambda: _lose(ending, flags["storage"], patience_s)))


def _allow(sampler: str | None, pruner: str | None) -> None:
    """Allow the user's own sampler and pruner that a command line or its run names."""
    from hpo import trust

    named: dict[trust.Kind, str | None] = {"sampler": sampler, "pruner": pruner}
    for kind, spec in named.items():
        if spec is not None:
            trust.name(kind, spec)


def _joined(pulse: Pulse, run: Run, parent: int, **flags: Any) -> dict[str, Any]:
    """Serve a run until its study is there; what that adds to this worker's command line."""
    from hpo.launch import children

    # A run whose trials have processes of their own goes on without this one.
    found = serve(pulse, run, parent=parent, device=flags["device"], threads=flags["threads"])
    run.move_log(Path(found["log"][0]), Path(found["log"][1]))
    run.leave()
    _allow(found["sampler"], found["pruner"])
    # The task that was looked at is not trained.
    children.end(spare_services=True)
    return {
        "study_name": found["study_name"],
        "objective": found["objective"],
        "checkpoint_dir": found["checkpoint_dir"],
        "checkpoint_folder": found["checkpoint_folder"] and Path(found["checkpoint_folder"]),
    }


def _lose(ending: Ending, storage: str | None, patience_s: float) -> None:
    """Give back the ticket that this worker held; these imports are not needed before."""
    from hpo.database import waiting
    from hpo.database.connection import connect
    from hpo.database.patience import set_patience, with_retries
    from hpo.environ import storage_url
    from hpo.tickets.leases import process_id
    from hpo.tickets.losses import lose

    stop_on_signals()
    waiting.install()
    set_patience(patience_s)
    url = storage_url(storage)
    db = with_retries(
        lambda: connect(url, application="supervisor", needs_writes=True, connections=1)
    )
    held = ending.held
    lose(
        db,
        process_id(),
        study_uid=held.study_uid,
        ticket=held.ticket,
        attempt=held.attempt,
        count=ending.count,
        cause=ending.cause,
    )


def _train(
    pulse: Pulse,
    *,
    parent: int,
    study_name: str,
    storage: str | None,
    slot: str,
    device: str,
    threads: int,
    checkpoint_dir: str | None,
    checkpoint_folder: Path | None,
    objective: str | None,
    predictions: str,
    predictions_every: str,
    trial_timeout: float | None,
    patience: float,
    grace: float,
    fresh_process: bool,
    gpu_share: float,
    allow_mixed: bool,
    is_launched: bool,
) -> bool:
    """Be the process that trains; return True if the next trial is to have another one."""
    import platform
    import resource
    import time

    with uncollected():
        import torch

        from hpo.database.connection import connect
        from hpo.database.patience import set_patience, with_retries
        from hpo.engine.recording import Recording
        from hpo.environ import home, named_storage, storage_url
        from hpo.launch import children
        from hpo.study.place import DATABASE, Place
        from hpo.study.study import claimed, open_study
        from hpo.task import compiler
        from hpo.tickets.leases import process_id
        from hpo.worker import rotation
        from hpo.worker.supervisor import watch_parent
        from hpo.worker.worker import Worker, WorkerConfig

    # By SIGUSR2 the supervisor asks for the stacks of this process.
    stop = stop_on_signals(signals=[number for number in STOPS if number != signal.SIGUSR2])
    watch_parent(parent, stop, pulse)
    compiler.defer()
    torch.set_num_threads(threads)
    set_patience(patience)
    # Of several hosts none shares the embedded server.
    usual = DATABASE if named_storage(storage) else None
    place = Place.of(checkpoint_dir or usual)
    # A copy to the database takes some seconds, in which trial and beats need theirs.
    most = 3 if place.copies == DATABASE else 2
    url = storage_url(storage)
    try:
        db = with_retries(
            lambda: connect(url, application=slot, needs_writes=True, connections=most, kept=2)
        )
        opened = with_retries(lambda: claimed(open_study(db, study_name)))
    except StorageError as error:
        # A storage error would exit with 2, misconfigured; after a 1 the fleet may restart it.
        raise RunFailed(str(error)) from error
    config = WorkerConfig(
        name=f"{platform.node()}/{slot}",
        slot=slot,
        device=device,
        objective=objective,
        recording=Recording.of(predictions, predictions_every),
        checkpoints=checkpoint_folder or place.folder_of(opened.uid, home=home()),
        copies=place.copies,
        grace_s=grace,
        trial_timeout_s=trial_timeout,
        # The supervisor first notes why this process has ended; only then is its ticket given back.
        process=process_id(parent) or process_id(),
        is_for_one=fresh_process,
        gpus=gpu_share if device.startswith("cuda") else 0.0,
        is_launched=is_launched,
        is_mixed=allow_mixed,
        log=rotation.path(),
    )
    runner = Worker(config, opened, db, stop, pulse)
    started_cpu_s = time.process_time()
    try:
        is_spent = runner.run()
    finally:
        children.end()
    # A thread of the objective, or a device, may hold this process back.
    pulse.begin("exit")
    logging.getLogger(__name__).info(
        "CPU: start %.1f s, training and validation %.1f s, the rest %.1f s; peak memory %d MB",
        started_cpu_s,
        runner.training_cpu_s,
        time.process_time() - started_cpu_s - runner.training_cpu_s,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )
    return is_spent
