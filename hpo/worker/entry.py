"""A worker's entry into the crew: who it is, and the facts of its host that others compare.

Border: reads this process and its host; `tickets.crew` stores what it reads.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hpo.machine.version import Version
from hpo.tickets.crew import Member
from hpo.tickets.leases import host_name, process_id

# Hosts that find the same name in this folder of their checkpoint folders share one. It holds no
# file, which would be counted as a checkpoint.
_MARK = ".folder"
# Another host has made the mark, and gives it a name within this time.
_MARKED_S = 1.0
# These place workers themselves, and call their slots by their names, as `ray:0`. A command may
# call its worker's slot by any, as `pod:0`.
_ENGINES = ("ray", "slurm")


def member(
    *,
    slot: str,
    process: str | None,
    device: torch.device,
    version: Version,
    is_launched: bool,
    log: Path | None,
) -> Member:
    """This process as a worker of the crew.

    Args:
        process: The process whose end is the worker's; None for this one.
        is_launched: True if a run on this host has started it.
    """
    engine = slot.partition(":")[0]
    own = "local" if is_launched else "none"
    return Member(
        worker=f"{platform.node()}/{slot}",
        host=host_name(),
        slot=slot,
        process=process or process_id(),
        launcher=engine if engine in _ENGINES else own,
        gpu=_gpu(device),
        log=None if log is None else str(log),
        version=version,
    )


def _gpu(device: torch.device) -> str | None:
    """Name and UUID of a GPU; None for a CPU."""
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} GPU-{found.uuid}" if hasattr(found, "uuid") else str(found.name)


def facts(
    version: Version, checkpoints: Path, *, copies: str | None, git: str, clock_s: float
) -> Mapping[str, Any]:
    """The facts of this host that a study's hosts should have in common.

    Args:
        copies: Where checkpoints are copied to, for other hosts; None for nowhere.
    """
    return {
        "git": git,
        "version": dict(version),
        "python": platform.python_version(),
        "cuda": torch.version.cuda or "-",
        "clock_s": round(clock_s, 2),
        "checkpoints": _place(checkpoints, copies),
    }


def _place(folder: Path, copies: str | None) -> Mapping[str, Any]:
    """The place from which other hosts go on: the copies' if there are any, else the folder."""
    found = {"folder": str(folder), **_folder(folder)}
    if copies is not None and found["is_writable"]:
        return {**found, "folder": copies, "mark": copies}
    return found


def _folder(folder: Path) -> Mapping[str, Any]:
    """The mark of a folder, which is made if it has none, and whether it can be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {"mark": _mark(folder / _MARK), "is_writable": os.access(folder, os.W_OK)}
    except OSError as error:
        return {"mark": "", "is_writable": False, "why": str(error.strerror)}


def _mark(mark: Path) -> str:
    """The name of the only folder in a mark; whoever makes the mark gives it one."""
    try:
        mark.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + _MARKED_S
        while time.monotonic() < deadline:
            if found := next(mark.iterdir(), None):
                return found.name
            time.sleep(_MARKED_S / 20)
    (mark / str(uuid.uuid4())).mkdir()
    return next(mark.iterdir()).name
