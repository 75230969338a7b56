"""The GPUs of this host that torch can use, as CUDA_VISIBLE_DEVICES names them.

torch counts them in a process of its own. A process sees one MIG device at most, so these are
listed by nvidia-smi or by their names. Border: finds them; `slots` puts workers on them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import takewhile
from pathlib import Path

from hpo.errors import ConfigurationError

# nvidia-smi takes 1 to 5 s on a machine of eight GPUs whose driver sleeps.
_DRIVER_S = 20.0
# The driver has a folder here for each compute instance of a MIG device.
_INSTANCES = "/proc/driver/nvidia/capabilities"
_LOOK = (
    "import json, sys, torch; count = torch.cuda.device_count(); "
    "uuids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(count)]; "
    "json.dump([torch.version.cuda, uuids], sys.stdout)"
)
# CUDA reads names up to the first that is none of these, as `NoDevFiles`, `void` or -1.
_NAME = re.compile(r"\d+|GPU-[\w-]+|MIG-[\w/-]+")
# "GPU 0: NVIDIA H100 (UUID: GPU-5f)", and "  MIG 1g.10gb Device 0: (UUID: MIG-7a)" below it.
_LISTED = re.compile(r"^\s*(?P<kind>GPU|MIG) .*\(UUID: (?P<uuid>[\w/-]+)\)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU or a MIG device.

    Attributes:
        name: Its name in CUDA_VISIBLE_DEVICES: a number, or a UUID in whole or in part.
        uuid: What identifies it on this host, whatever its name.
    """

    name: str
    uuid: str


def usable_gpus(*, visible: str | None = None) -> list[Gpu]:
    """The GPUs that torch can use here, in CUDA's order.

    Args:
        visible: CUDA_VISIBLE_DEVICES; without a GPU's name in it none is wanted.

    Raises:
        ConfigurationError: There is an NVIDIA device, but torch cannot use it.
    """
    names = None if visible is None else named(visible)
    if names == [] or not has_nvidia_device():
        return []
    cuda, uuids = torchs_gpus()
    if cuda is None:
        raise ConfigurationError(
            f"this machine has an NVIDIA GPU, but torch {metadata.version('torch')} is a CPU "
            "build; install a CUDA build of the same version (docs/installation.md), or "
            "set CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    if not uuids:
        raise ConfigurationError(
            f"this machine has an NVIDIA GPU, but torch's CUDA {cuda} can use none; "
            "bring the driver up to date (nvidia-smi shows its CUDA version), name one that exists "
            "in CUDA_VISIBLE_DEVICES, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    if names is None and _has_mig_devices():
        names = listed(_nvidia_smi("-L") or "")
    return usable(names, uuids)


def named(visible: str) -> list[str]:
    """The names in CUDA_VISIBLE_DEVICES, as CUDA reads it: up to the first that is none."""
    names = (name.strip() for name in visible.split(","))
    return list(dict.fromkeys(takewhile(_NAME.fullmatch, names)))


def usable(names: Sequence[str] | None, uuids: Sequence[str]) -> list[Gpu]:
    """The GPUs of these names, as far as torch sees them.

    Args:
        names: None for all that torch sees.
        uuids: Identifiers of the GPUs that torch sees, in CUDA's order.
    """
    if names is None:
        return [Gpu(name=str(i), uuid=uuid) for i, uuid in enumerate(uuids)]
    if any(name.startswith("MIG-") for name in names):
        # torch sees the first of them alone, and each worker its own.
        return [Gpu(name=name, uuid=name) for name in names]
    return [Gpu(name=name, uuid=uuid) for name, uuid in zip(names, uuids, strict=False)]


def listed(text: str) -> list[str] | None:
    """The MIG devices, and the GPUs without any, in what `nvidia-smi -L` prints; None if nothing.

    MIG divides a card into devices that a process can use one of.
    """
    found: list[str] = []
    card = None
    for line in _LISTED.finditer(text):
        is_card = line["kind"] == "GPU"
        if not is_card and found and found[-1] == card:
            found.pop()
        found.append(line["uuid"])
        card = line["uuid"] if is_card else card
    return found or None


def torchs_gpus() -> tuple[str | None, list[str]]:
    """torch's version of CUDA, None for a CPU build, and the UUIDs of the GPUs that it can use.

    A run holds 80 MB without torch and 270 with it, and needs no more of it than this.

    Raises:
        ConfigurationError: torch cannot be imported.
    """
    if not sys.executable:
        raise ConfigurationError("Python does not know its own program, so none can be started")
    command = [sys.executable, "-P", "-c", _LOOK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["?"])[-1]
        raise ConfigurationError(f"torch cannot look for GPUs: {said}")
    cuda, uuids = json.loads(done.stdout.splitlines()[-1])
    return cuda, uuids


def has_nvidia_device() -> bool:
    """Return whether the kernel's driver or nvidia-smi sees an NVIDIA GPU.

    Raises:
        ConfigurationError: The driver hangs.
    """
    return any(Path("/dev").glob("nvidia[0-9]*")) or "GPU" in (_nvidia_smi("-L") or "")


def _has_mig_devices() -> bool:
    return any(Path(_INSTANCES).glob("gpu*/mig/gi*/ci*"))


def _nvidia_smi(*arguments: str) -> str | None:
    """What nvidia-smi prints; None if there is no such program, or it fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, *arguments], capture_output=True, text=True, timeout=_DRIVER_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(
            f"'{tool}' has not answered for {_DRIVER_S:.0f} s: the NVIDIA driver hangs; mend that, "
            "or set CUDA_VISIBLE_DEVICES= to train on the CPU"
        ) from error
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
