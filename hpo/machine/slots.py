"""Slots for workers on this machine, from its GPUs, cores and memory.

Border: reads the machine and changes nothing; `gpus` has torch count its GPUs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.errors import ConfigurationError
from hpo.machine.gpus import torchs_gpus

if TYPE_CHECKING:
    import torch

# The largest worker seen on one core held well below 1 GiB; the rest is left to the system.
_WORKER_BYTES = 1 << 30

# nvidia-smi takes 1 to 5 s on a machine of eight GPUs whose driver sleeps.
_DRIVER_S = 20.0

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
    """The place of one worker: a name for people, a device, and environment variables."""

    name: str
    device: str
    environment: tuple[tuple[str, str], ...] = ()


def cpu_slots(count: int) -> list[Slot]:
    """Slots of one core each; a worker's libraries start one thread."""
    return [Slot(name=f"cpu:{i}", device="cpu", environment=_ONE_CORE) for i in range(count)]


def gpu_slots(count: int, *, visible: str | None = None, per_gpu: int = 1) -> list[Slot]:
    """Slots of one GPU each; each worker sees its own GPU alone, as cuda:0.

    Args:
        count: The number of GPUs that torch sees.
        visible: CUDA_VISIBLE_DEVICES, whose names (numbers, UUIDs, MIG ids) are passed on.
        per_gpu: The number of workers that share a GPU.
    """
    names = [name for name in (visible or "").split(",") if name]
    names = names or [str(i) for i in range(count)]
    return [
        Slot(
            name=f"gpu:{name}" if per_gpu == 1 else f"gpu:{name}.{share}",
            device="cuda",
            environment=(("CUDA_VISIBLE_DEVICES", name),),
        )
        for name in names[:count]
        for share in range(per_gpu)
    ]


def gpu_count(*, visible: str | None = None) -> int:
    """The number of GPUs that torch can use here.

    Args:
        visible: CUDA_VISIBLE_DEVICES; empty means that none is wanted.

    Raises:
        ConfigurationError: There is an NVIDIA device, but torch cannot use it.
    """
    if visible == "" or not has_nvidia_device():
        return 0
    cuda, count = torchs_gpus()
    if cuda is None:
        raise ConfigurationError(
            f"this machine has an NVIDIA GPU, but torch {metadata.version('torch')} is a CPU "
            "build; install a CUDA build of the same version (docs/installation.md), or "
            "set CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    if count == 0:
        raise ConfigurationError(
            f"this machine has an NVIDIA GPU, but torch's CUDA {cuda} can use none; "
            "bring the driver up to date (nvidia-smi shows its CUDA version), name one that exists "
            "in CUDA_VISIBLE_DEVICES, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    return count


def has_nvidia_device() -> bool:
    """Return whether the kernel's driver or nvidia-smi sees an NVIDIA GPU.

    Raises:
        ConfigurationError: The driver hangs.
    """
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        listed = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, timeout=_DRIVER_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(
            f"'{tool}' has not answered for {_DRIVER_S:.0f} s: the NVIDIA driver hangs; mend that, "
            "or set CUDA_VISIBLE_DEVICES= to train on the CPU"
        ) from error
    except OSError:
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


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
    """The slots for a run on this machine.

    Args:
        visible: CUDA_VISIBLE_DEVICES.

    Raises:
        ConfigurationError: There are fewer GPUs or slots than requested.
    """
    count = gpu_count(visible=visible)
    if not count:
        if gpus:
            raise ConfigurationError(
                f"--gpus {','.join(gpus)}: torch sees no GPU here; leave --gpus out to "
                "train on the CPU ('python -m hpo doctor' looks for the reason)"
            )
        return cpu_slots(workers or usable_cores())
    found = gpu_slots(count, visible=visible, per_gpu=per_gpu)
    if gpus:
        found = chosen(found, gpus)
    if workers is not None and workers > len(found):
        raise ConfigurationError(
            f"--workers {workers} is more than {len(found) // per_gpu} GPUs hold; write "
            "--workers_per_gpu K too"
        )
    return found[:workers]


def slots_on(device: str | None, workers: int | None, *, visible: str | None) -> list[Slot]:
    """The slots of this machine on one device, or those for a run.

    Args:
        device: `cpu`, `cuda` for all GPUs, or one of them as `cuda:1`; None as for a run.
        workers: The number of slots; on one device as `cuda:1` they share it. None for one per
            GPU, else one per usable core.
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
    name, count = str(torch_device(str(device))), workers or 1
    names = [name] if count == 1 else [f"{name}.{share}" for share in range(count)]
    return [Slot(name=each, device=name) for each in names]


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
