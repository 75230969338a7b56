"""The engine that a run asks for: its launcher, and the slots that it keeps a worker on.

PostgreSQL holds all state, and an engine only keeps workers running. Border: makes launchers;
`hpo.fleet` uses them through their interface alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hpo import environ
from hpo.errors import ConfigurationError, RunInterrupted
from hpo.launch.launcher import Launcher
from hpo.launch.local import LocalLauncher
from hpo.launch.reach import is_loopback
from hpo.machine.reservations import Reservations
from hpo.machine.slots import Slot, cpu_slots, find_slots
from hpo.study.request import RunRequest

# A GPU that another run gives back is taken within this time.
_POLL_S = 1.0
# Ray counts no smaller shares.
_LEAST_SHARE = 0.0001


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A launcher and its slots.

    Attributes:
        is_local: True if its workers run on this host, and share its files.
        elsewhere: Hosts other than this one, as far as they are known.
        reservations: The GPUs that it holds for them.
    """

    launcher: Launcher
    slots: Sequence[Slot]
    is_local: bool = True
    elsewhere: Sequence[str] = ()
    reservations: Reservations = field(default_factory=Reservations)

    @property
    def on_gpu(self) -> bool:
        return self.slots[0].device == "cuda"

    def refuse_unreachable(self, url: str) -> None:
        """Refuse a storage that other hosts cannot reach.

        Raises:
            ConfigurationError: It is on this host alone, and some workers would be elsewhere.
        """
        if self.elsewhere and is_loopback(url):
            hosts = ", ".join(self.elsewhere[:3]) + (", ..." if len(self.elsewhere) > 3 else "")
            raise ConfigurationError(
                f"the storage is on this host alone, and the cluster has other hosts ({hosts}); "
                "name a database that they reach (--storage or HPO_STORAGE)"
            )

    def close(self) -> None:
        """Leave the engine, and give its GPUs back."""
        self.launcher.close()
        self.reservations.close()


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
        from hpo.launch.slurm_engine import slurm_engine

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


def reserved(
    slots: Sequence[Slot],
    reservations: Reservations,
    *,
    say: Callable[[str], object],
    stop: threading.Event,
    timeout_s: float | None = None,
    most: int | None = None,
) -> list[Slot]:
    """The slots whose GPUs no other run of this host has; these are reserved. Waits for one.

    Args:
        most: The number of slots that are wanted; None for all.

    Raises:
        RunInterrupted: It was stopped, or the time was over, before one was free.
    """
    began_at, has_said = time.monotonic(), False
    gpus = {slot.gpu: slot for slot in slots if slot.gpu is not None}
    while True:
        free, taken = _free(slots, reservations, most=most)
        held = ", ".join(
            f"{dict(gpus[gpu].environment)['CUDA_VISIBLE_DEVICES']} (process {pid or 'unknown'})"
            for gpu, pid in taken.items()
        )
        if free:
            if taken:
                say(f"GPUs that other runs of this host use are left to them: {held}")
            return free
        if not has_said:
            say(f"waiting for a GPU; other runs of this host use all of them: {held}")
            has_said = True
        if stop.wait(_POLL_S):
            raise RunInterrupted("the run was stopped while it waited for a GPU")
        if timeout_s is not None and time.monotonic() - began_at > timeout_s:
            raise RunInterrupted(f"{timeout_s:g} s are over, and no GPU has become free")


def _free(
    slots: Sequence[Slot], reservations: Reservations, *, most: int | None
) -> tuple[list[Slot], Mapping[str, int | None]]:
    """The first slots that are free or ours, and the GPUs before them that others hold."""
    free: list[Slot] = []
    taken: dict[str, int | None] = {}
    for slot in slots:
        if len(free) == most:
            break
        if slot.gpu is not None and slot.gpu not in taken:
            taken |= reservations.take([slot.gpu])
        if slot.gpu is None or slot.gpu not in taken:
            free.append(slot)
    return free, taken


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
