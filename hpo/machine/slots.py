"""Slots for workers on this machine, from its GPUs, cores and memory.

Border: reads the machine and changes nothing; `gpus` finds its GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.errors import ConfigurationError
from hpo.machine.gpus import Gpu, usable_gpus

if TYPE_CHECKING:
    import torch

# The largest worker seen on one core held well below 1 GiB; the rest is left to the system.
_WORKER_BYTES = 1 << 30

# Each library gets one thread. glibc keeps freed memory, because returning a step's tensors to the
# kernel and faulting them in again took a fifth of a worker's CPU time.
_ONE_CORE = (
    ("OMP_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("MALLOC_MMAP_THRESHOLD_", str(32 << 20)),
    ("MALLOC_TRIM_THRESHOLD_", str(1 << 30)),
)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The place of one worker: a name for people, a device, and environment variables.

    Attributes:
        gpu: What identifies its GPU on this host; None without one.
    """

    name: str
    device: str
    environment: tuple[tuple[str, str], ...] = ()
    gpu: str | None = None


def cpu_slots(count: int) -> list[Slot]:
    """Slots of one core each; a worker's libraries start one thread."""
    return [Slot(name=f"cpu:{i}", device="cpu", environment=_ONE_CORE) for i in range(count)]


def gpu_slots(gpus: Sequence[Gpu], *, per_gpu: int = 1) -> list[Slot]:
    """Slots of one GPU each; each worker sees its own GPU alone, as cuda:0.

    Args:
        per_gpu: The number of workers that share a GPU.
    """
    return [
        Slot(
            name=f"gpu:{gpu.name}" if per_gpu == 1 else f"gpu:{gpu.name}.{share}",
            device="cuda",
            environment=(("CUDA_VISIBLE_DEVICES", gpu.name),),
            gpu=gpu.uuid,
        )
        for gpu in gpus
        for share in range(per_gpu)
    ]


def usable_cores() -> int:
    """Cores that this process may use, by affinity, cgroup quota and memory; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bounds = [float(cores or 1)]
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        bounds.append(int(quota[0]) / int(quota[1]))
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdecimal():
        bounds.append(int(limit) / _WORKER_BYTES)
    free = free_memory()
    if free is not None:
        bounds.append(free / _WORKER_BYTES)
    return max(1, int(min(bounds)))


def free_memory() -> int | None:
    """Memory that new processes can use without swapping, in bytes; None where it is unknown."""
    import psutil  # 15 ms that `hpo --help` need not pay

    try:
        return int(psutil.virtual_memory().available)
    except OSError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def torch_device(name: str) -> torch.device:
    """The device of this name, tested by a first tensor on it.

    Raises:
        ConfigurationError: There is no device of this name, or torch cannot use it.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"no device '{name}' here: {reason} (--device)") from error
    return device


def find_slots(
    *, visible: str | None, workers: int | None = None, per_gpu: int = 1, gpus: Sequence[str] = ()
) -> list[Slot]:
    """The slots that a run on this machine may choose its workers' from.

    Args:
        visible: CUDA_VISIBLE_DEVICES.
        workers: The number that is wanted. On GPUs more are returned, as another run may hold some.

    Raises:
        ConfigurationError: There are fewer GPUs or slots than requested.
    """
    usable = usable_gpus(visible=visible)
    if not usable:
        if gpus:
            raise ConfigurationError(
                f"--gpus {','.join(gpus)}: torch sees no GPU here; leave --gpus out to "
                "train on the CPU ('python -m hpo doctor' looks for the reason)"
            )
        return cpu_slots(workers or usable_cores())
    found = gpu_slots(usable, per_gpu=per_gpu)
    if gpus:
        found = chosen(found, gpus)
    if workers is not None and workers > len(found):
        raise ConfigurationError(
            f"--workers {workers} is more than {len(found) // per_gpu} GPUs hold; write "
            "--workers_per_gpu K too"
        )
    return found


def slots_on(device: str | None, workers: int | None, *, visible: str | None) -> list[Slot]:
    """The slots of this machine on one device, or those for a run.

    Args:
        device: `cpu`, `cuda` for all GPUs, or one of them as `cuda:1`; None as for a run.
        workers: The number of slots that are wanted; on one device as `cuda:1` they share it. None
            for one per GPU, else one per usable core.
        visible: CUDA_VISIBLE_DEVICES.

    Raises:
        ConfigurationError: There is no such device, or there are fewer slots than requested.
    """
    if device == "cpu":
        return cpu_slots(workers or usable_cores())
    if device in (None, "cuda"):
        found = find_slots(workers=workers, visible=visible)
        if device is None or found[0].device == "cuda":
            return found
    found_device, count = torch_device(str(device)), workers or 1
    name = str(found_device)
    names = [name] if count == 1 else [f"{name}.{share}" for share in range(count)]
    gpu = None
    if found_device.type == "cuda":
        gpu = usable_gpus(visible=visible)[found_device.index or 0].uuid
    return [Slot(name=each, device=name, gpu=gpu) for each in names]


def chosen(found: Sequence[Slot], gpus: Sequence[str]) -> list[Slot]:
    """The slots on the GPUs of these names."""
    by_gpu: dict[str, list[Slot]] = {}
    for slot in found:
        by_gpu.setdefault(dict(slot.environment)["CUDA_VISIBLE_DEVICES"], []).append(slot)
    unknown = [name for name in gpus if name not in by_gpu]
    if unknown:
        raise ConfigurationError(
            f"--gpus {','.join(gpus)}: there is no GPU '{unknown[0]}'; use some of "
            f"{', '.join(by_gpu)}"
        )
    return [slot for name in dict.fromkeys(gpus) for slot in by_gpu[name]]
