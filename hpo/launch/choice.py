"""The engine that a run asks for by `--launcher`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from hpo import environ
from hpo.errors import ConfigurationError
from hpo.launch.engine import Engine, local_engine, remote_slots
from hpo.launch.slurm_engine import slurm_engine
from hpo.machine.reservations import Reservations, reserved
from hpo.machine.slots import find_slots
from hpo.study.request import RunRequest

# Ray counts no smaller shares.
_LEAST_SHARE = 0.0001


def engine_of(
    request: RunRequest, *, say: Callable[[str], object], stop: threading.Event
) -> Engine:
    """The engine that a run asks for.

    GPUs that another run of this host holds are left to it. If it holds all, they are waited for.

    Args:
        say: Called with a sentence on that.
        stop: Set to end the wait.

    Raises:
        ConfigurationError: It cannot be used, or has fewer slots than requested.
        RunInterrupted: The run was stopped while it waited.
    """
    if request.slurm and request.launcher != "slurm":
        raise ConfigurationError(
            f"--slurm_{next(iter(request.slurm))} belongs to --launcher slurm; write that, too"
        )
    if request.runtime_env is not None and request.launcher != "ray":
        raise ConfigurationError("--runtime_env belongs to --launcher ray; write that, too")
    if request.launcher == "slurm":
        return slurm_engine(request)
    if request.launcher == "ray":
        return _ray_engine(request)
    if request.gpus_per_worker is not None:
        raise ConfigurationError(
            "--gpus_per_worker belongs to a cluster; write --launcher ray or slurm too, or here "
            "--workers_per_gpu"
        )
    slots = find_slots(
        visible=environ.visible_gpus(),
        workers=request.workers,
        per_gpu=request.workers_per_gpu,
        gpus=request.gpus,
    )
    reservations = Reservations()
    try:
        free = reserved(
            slots,
            reservations,
            say=say,
            stop=stop,
            timeout_s=request.timeout_s,
            most=request.workers,
        )
    except BaseException:
        reservations.close()
        raise
    return replace(local_engine(free), reservations=reservations)


def _ray_engine(request: RunRequest) -> Engine:
    """Workers in a Ray cluster, each with its share of a GPU, or with a core."""
    from hpo.launch.ray import RayLauncher

    gpus = request.gpus_per_worker
    # What is wrong with the flags is said before a cluster is looked for.
    slots = remote_slots("ray", request, gpus=1 if gpus is None else gpus)
    # Infinity has no whole part.
    if gpus is not None and gpus % 1 and not _LEAST_SHARE <= gpus < 1:
        raise ConfigurationError(
            f"--gpus_per_worker {gpus:g}: a share is {_LEAST_SHARE:g} or more, and above 1 it is a "
            "whole number"
        )
    launcher = RayLauncher(environ.variables(), runtime_env=request.runtime_env)
    if gpus is None and not launcher.cluster.gpus:
        launcher.close()
        raise ConfigurationError(
            "the Ray cluster has no GPU; write --gpus_per_worker 0 to train on CPUs, or "
            "--gpus_per_worker 1 to wait until it has one"
        )
    launcher.gpus = 1.0 if gpus is None else gpus
    return Engine(
        launcher=launcher, slots=slots, is_local=False, elsewhere=launcher.cluster.elsewhere
    )
