"""The engine that a run asks for: its launcher, and the slots that it keeps a worker on.

PostgreSQL holds all state, and an engine only keeps workers running. Border: makes launchers;
`hpo.fleet` uses them through their interface alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo import environ
from hpo.errors import ConfigurationError
from hpo.launch.launcher import Launcher
from hpo.launch.local import LocalLauncher
from hpo.machine.slots import Slot, find_slots
from hpo.study.request import RunRequest


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A launcher and its slots.

    Attributes:
        is_local: True if its workers run on this host, and share its files.
    """

    launcher: Launcher
    slots: Sequence[Slot]
    is_local: bool = True

    @property
    def on_gpu(self) -> bool:
        return self.slots[0].device == "cuda"


def engine_of(request: RunRequest) -> Engine:
    """The engine that a run asks for.

    Raises:
        ConfigurationError: It cannot be used, or has fewer slots than requested.
    """
    slots = find_slots(
        visible=environ.visible_gpus(),
        workers=request.workers,
        per_gpu=request.workers_per_gpu,
        gpus=request.gpus,
    )
    return local_engine(slots)


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
    return [Slot(name=f"{name}:{i}", device=device) for i in range(request.workers)]
