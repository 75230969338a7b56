"""The engine of `--launcher slurm`: what of a request a cluster can do, and what it cannot.

Border: refuses and chooses; `slurm` keeps the workers running.
"""

from __future__ import annotations

import platform

from hpo import environ
from hpo.errors import ConfigurationError
from hpo.launch import slurm_queue
from hpo.launch.engine import Engine, remote_slots
from hpo.launch.slurm import SlurmLauncher
from hpo.launch.slurm_script import asks_for_gpus, checked
from hpo.study.request import RunRequest


def slurm_engine(request: RunRequest) -> Engine:
    """Tasks of Slurm's job arrays, with the GPUs that the request or its options ask for.

    Raises:
        ConfigurationError: Slurm is not here, or the request asks for what it does not have.
    """
    slurm_queue.require()
    options = checked(request.slurm)
    own = asks_for_gpus(options)
    gpus = 1.0 if request.gpus_per_worker is None else request.gpus_per_worker
    slots = remote_slots("slurm", request, gpus=gpus)
    if own is not None and request.gpus_per_worker is not None:
        raise ConfigurationError(
            f"--slurm_{own} and --gpus_per_worker both ask for GPUs; write one of them"
        )
    if gpus % 1:
        raise ConfigurationError(
            f"Slurm gives whole GPUs, and --gpus_per_worker is {gpus:g}; where its administrator "
            "lets jobs share one, write --slurm_gres shard:1"
        )
    partition = slurm_queue.partition(options.get("partition"))
    if own is None and request.gpus_per_worker is None and partition.is_without_gpus:
        raise ConfigurationError(
            f"{partition.name} has no GPU; write --gpus_per_worker 0 to train on CPUs, or "
            "--slurm_partition for another one"
        )
    if own is None and gpus:
        options["gres"] = f"gpu:{gpus:g}"
    own_name = platform.node().partition(".")[0]
    return Engine(
        launcher=SlurmLauncher(environ.variables(), options),
        slots=slots,
        is_local=False,
        elsewhere=[name for name in partition.hosts if name.partition(".")[0] != own_name],
    )
