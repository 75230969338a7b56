"""The Ray launcher: workers on the hosts of a Ray cluster, each held by an actor.

The cluster is that of RAY_ADDRESS, else one that runs on this host, else a new one of this host
alone. Border: this process never imports `ray`; its bridge does (`ray_bridge`), which ends with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError
from hpo.launch.log import opened
from hpo.launch.ray_actor import PARENT, PYTHON
from hpo.launch.ray_link import Link, RayProcess
from hpo.launch.reach import is_loopback

# Variables of the bridge: Ray reports nothing of a run to its makers, and does not repeat the
# command line of a `uv run` above us on its hosts. It looks for a cluster once, for 40 s.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "1",
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster as a run finds it.

    Attributes:
        gpus: The GPUs of all its hosts.
        elsewhere: Addresses of its hosts other than this one.
    """

    gpus: float
    elsewhere: Sequence[str]


class RayLauncher:
    """A launcher of workers in a Ray cluster.

    Args:
        environment: This process's environment; the bridge gets it without the storage.
        runtime_env: File of a runtime environment, passed to Ray as it is.

    Attributes:
        gpus: GPUs of each worker.
        cluster: The cluster as it was found.
    """

    def __init__(self, environment: Mapping[str, str], *, runtime_env: Path | None) -> None:
        if util.find_spec("ray") is None:
            raise ConfigurationError(
                "--launcher ray needs the package ray; in the clone write pip install -e '.[ray]', "
                "on every host"
            )
        self._environment = {**_SETTINGS, **environment}
        # What Ray starts on this host inherits the bridge's environment.
        self._environment.pop("HPO_STORAGE", None)
        self._runtime_env = None if runtime_env is None else _read(runtime_env)
        self._number = 0
        self._bridge = self._connect(is_again=False)
        try:
            found = self._bridge.connected()
        except BaseException:
            # Ctrl-C, for which Ray would go on trying.
            self.close()
            raise
        if "ready" not in found:
            self.close()
            raise ConfigurationError(
                f"--launcher ray: no cluster: {self._bridge.failure()}; start one ('ray start "
                "--head', on other hosts 'ray start --address HOST:6379') and name it in "
                "RAY_ADDRESS"
            )
        self.cluster = Cluster(**found["ready"])
        self.gpus = 0.0

    def _connect(self, *, is_again: bool) -> Link:
        settings = {"runtime_env": self._runtime_env, "version": _version()}
        return Link(self._environment, {**settings, "is_again": is_again, "run": os.getpid()})

    @property
    def program(self) -> Sequence[str]:
        """The first words of this program's command line on a host of the cluster."""
        return (PYTHON, "-P", "-m", "hpo")

    @property
    def tether(self) -> Sequence[str]:
        """Flags by which a worker ends with its actor."""
        return ("--with_parent", PARENT)

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
    ) -> RayProcess:
        """Start a worker where the cluster has a place for it, or wait for one.

        Raises:
            ConfigurationError: Its log cannot be written.
        """
        opened(log).close()
        if not self._bridge.is_alive:
            # The cluster went away, and the run goes on as soon as there is one.
            self._bridge = self._connect(is_again=True)
        self._number += 1
        number, bridge = self._number, self._bridge
        process = RayProcess(lambda what: bridge.tell({"id": number, "do": what}), log)
        bridge.start(
            number,
            process,
            {
                "argv": self._there(argv),
                "environment": dict(environment),
                "gpus": self.gpus,
                # A host may join after the run has looked at them.
                "is_bound": is_loopback(environment["HPO_STORAGE"]),
            },
        )
        return process

    def _there(self, argv: Sequence[str]) -> list[str]:
        """A command line as a host reads it: below the working folder that Ray brings along."""
        folder = (self._runtime_env or {}).get("working_dir")
        if not isinstance(folder, str) or not Path(folder).is_dir():
            return list(argv)
        root, words = Path(folder).resolve(), list(argv)
        at = words.index("--objective") + 1 if "--objective" in words else 0
        if at and words[at].endswith(".py") and Path(words[at]).resolve().is_relative_to(root):
            words[at] = str(Path(words[at]).resolve().relative_to(root))
        return words

    def close(self) -> None:
        """Leave the cluster; workers that still run are asked to end."""
        self._bridge.close()


def _read(path: Path) -> dict[str, Any]:
    """The runtime environment of a file."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--runtime_env '{path}' cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(
            f'--runtime_env \'{path}\' is no object; write as {{"working_dir": "."}}'
        )
    return found


def _version() -> str | None:
    """The version of this package where the run is; None in a clone that is not installed."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version("hpo")
    return None
