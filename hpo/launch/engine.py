"""An engine: a launcher, and the slots that it keeps a worker on.

PostgreSQL holds all state, and an engine only keeps workers running. `choice` finds the one that a
run asks for; `hpo.fleet` uses its launcher through the interface alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hpo import environ
from hpo.errors import ConfigurationError
from hpo.launch.launcher import Launcher
from hpo.launch.local import LocalLauncher
from hpo.launch.reach import is_loopback
from hpo.machine.reservations import Reservations
from hpo.machine.slots import Slot, cpu_slots
from hpo.study.request import RunRequest


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
