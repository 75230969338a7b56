"""The engine that a run asks for: its launcher, and the slots that it keeps a worker on.

PostgreSQL holds all state, and an engine only keeps workers running. Border: makes launchers;
`hpo.fleet` uses them through their interface alone.
"""

from __future__ import annotations

import ipaddress
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from hpo import environ
from hpo.errors import ConfigurationError
from hpo.launch import slurm_queue
from hpo.launch.launcher import Launcher
from hpo.launch.local import LocalLauncher
from hpo.launch.slurm import SlurmLauncher
from hpo.launch.slurm_script import asks_for_gpus, checked
from hpo.machine.slots import Slot, cpu_slots, find_slots
from hpo.study.request import RunRequest


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A launcher and its slots.

    Attributes:
        is_local: True if its workers run on this host, and share its files.
        elsewhere: Hosts other than this one, as far as they are known.
    """

    launcher: Launcher
    slots: Sequence[Slot]
    is_local: bool = True
    elsewhere: Sequence[str] = ()

    @property
    def on_gpu(self) -> bool:
        return self.slots[0].device == "cuda"

    def refuse_unreachable(self, url: str) -> None:
        """Refuse a storage that other hosts cannot reach.

        Raises:
            ConfigurationError: It is on this host alone, and some workers would be elsewhere.
        """
        if self.elsewhere and is_loopback(url):
            self.launcher.close()
            hosts = ", ".join(self.elsewhere[:3]) + (", ..." if len(self.elsewhere) > 3 else "")
            raise ConfigurationError(
                f"the storage is on this host alone, and the cluster has other hosts ({hosts}); "
                "name a database that they reach (--storage or HPO_STORAGE)"
            )


def engine_of(request: RunRequest) -> Engine:
    """The engine that a run asks for.

    Raises:
        ConfigurationError: It cannot be used, or has fewer slots than requested.
    """
    if request.launcher == "slurm":
        return _slurm_engine(request)
    if request.slurm:
        raise ConfigurationError(
            f"--slurm_{next(iter(request.slurm))} belongs to --launcher slurm; write that, too"
        )
    slots = find_slots(
        visible=environ.visible_gpus(),
        workers=request.workers,
        per_gpu=request.workers_per_gpu,
        gpus=request.gpus,
    )
    return local_engine(slots)


def _slurm_engine(request: RunRequest) -> Engine:
    """Tasks of Slurm's job arrays, with the GPUs that the request or its options ask for."""
    slurm_queue.require()
    options = checked(request.slurm)
    own = asks_for_gpus(options)
    gpus = 1.0 if request.gpus_per_worker is None else request.gpus_per_worker
    slots = remote_slots("slurm", request, gpus=gpus)
    if own is not None and request.gpus_per_worker is not None:
        raise ConfigurationError(
            f"--slurm_{own} and --gpus_per_worker both ask for GPUs; write one of them"
        )
    if gpus != int(gpus):
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


def is_loopback(url: str) -> bool:
    """Return whether a storage's URL means the host that reads it."""
    from hpo.database.connection import parse_url

    parsed = parse_url(url)
    hosts = parsed.query.get("host") or parsed.host or ""
    for host in (hosts,) if isinstance(hosts, str) else hosts:
        try:
            is_own = ipaddress.ip_address(host).is_loopback
        except ValueError:
            # A folder is that of a Unix socket.
            is_own = host in ("", "localhost") or host.startswith("/")
        if not is_own:
            return False
    return True


def local_engine(slots: Sequence[Slot]) -> Engine:
    """Child processes on slots of this host."""
    return Engine(launcher=LocalLauncher(environ.variables()), slots=slots)


def remote_slots(name: str, request: RunRequest, *, gpus: float) -> list[Slot]:
    """The slots of an engine that places workers on hosts by itself, as `ray:0`, `ray:1`.

    Args:
        name: The launcher's.
        gpus: GPUs of a worker; 0 trains on CPUs.

    Raises:
        ConfigurationError: The number of workers is missing, or flags belong to another launcher.
    """
    if request.workers is None:
        raise ConfigurationError(
            f"--launcher {name} needs the number of workers that it is to keep running; "
            "write --workers N"
        )
    local = {"--gpus": request.gpus, "--workers_per_gpu": request.workers_per_gpu != 1}
    given = [flag for flag, is_given in local.items() if is_given]
    if given:
        raise ConfigurationError(
            f"{given[0]} belongs to --launcher local; --launcher {name} chooses the GPUs itself; "
            "write --gpus_per_worker, as .5 for two workers that share one"
        )
    device = "cuda" if gpus else "cpu"
    # As on this host, a worker on a CPU has one thread.
    environment = () if gpus else cpu_slots(1)[0].environment
    return [
        Slot(name=f"{name}:{i}", device=device, environment=environment)
        for i in range(request.workers)
    ]
