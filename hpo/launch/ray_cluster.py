"""The cluster of a bridge: joined at its start, waited for after a loss, and watched.

Border: talks to Ray; `ray_bridge` decides what follows.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray

from hpo import environ
from hpo.errors import RunFailed

# Ray itself tries for 20 s.
_AGAIN_S = 1.0
_ANSWER_S = 5.0


@contextmanager
def with_run(run: int) -> Iterator[None]:
    """End this process if its run, by this pid, ends meanwhile; Ray tries for minutes."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_AGAIN_S):
            if os.getppid() != run:
                os._exit(RunFailed.exit_code)

    threading.Thread(target=watch, name="run", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def connect(runtime_env: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """Join the cluster of RAY_ADDRESS or of this host, else start one.

    Returns:
        What a run asks of it, and the socket of its node on this host.

    Raises:
        Exception: There is none; Ray raises ConnectionError, RuntimeError, ValueError and others.
    """
    _refuse_silence(environ.ray_address())
    ray.init(
        # Unless it is named, a running one is looked for, and a new one is started without.
        runtime_env=None if runtime_env is None else dict(runtime_env),
        log_to_driver=False,
        logging_level="ERROR",
        configure_logging=False,
    )
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    own = {node["NodeManagerAddress"] for node in nodes if node["NodeID"] == here}
    others = sorted({node["NodeManagerAddress"] for node in nodes} - own)
    (socket_name,) = (node["RayletSocketName"] for node in nodes if node["NodeID"] == here)
    ready = {"gpus": ray.cluster_resources().get("GPU", 0.0), "elsewhere": others}
    return ready, socket_name


def _refuse_silence(address: str) -> None:
    """Refuse an address at which nothing listens: Ray tries it for minutes, without a word."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConnectionError(f"nothing listens at RAY_ADDRESS {address} ({why})") from error


def connect_again(runtime_env: Mapping[str, Any] | None) -> str:
    """Wait for a cluster in the place of one that went away; the socket of its node here."""
    while True:
        with suppress(Exception):
            return connect(runtime_env)[1]
        ray.shutdown()
        time.sleep(_AGAIN_S)


def is_alive(socket_name: str) -> bool:
    """Return whether the cluster's node on this host answers."""
    with socket.socket(socket.AF_UNIX) as raylet:
        try:
            raylet.connect(socket_name)
        except OSError:
            return False
    return True
