"""A Ray cluster of several nodes on this machine, each with processes of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from faults.host import ROOT, send

# A node takes 3 to 6 s to start; this only ends a program that hangs.
_HANGS_S = 120.0


class Cluster:
    """A cluster whose nodes are started by `ray start`, as a user does.

    Attributes:
        folder: Where Ray keeps its sessions and logs.
        environment: Variables of whoever uses it: its address and its token.
    """

    def __init__(self, *, head: tuple[str, ...] = ("--num-cpus", "1")) -> None:
        # The name of a socket has at most 107 characters, and one of pytest's folders has most.
        self.folder = Path(tempfile.mkdtemp(prefix="hpo-ray-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self._address = f"127.0.0.1:{port}"
        self._auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.environment = {"RAY_ADDRESS": self._address, **self._auth}
        self.nodes: list[subprocess.Popen[str]] = []
        self._started = [
            self._start("--head", f"--port={port}", f"--temp-dir={self.folder}", *head)
        ]

    def add(self, *flags: str) -> subprocess.Popen[str]:
        """Start another node, which is there when `ready` returns.

        Two that start at once on one machine may take each other's socket.
        """
        self.ready()
        self._started.append(self._start(f"--address={self._address}", *flags))
        return self.nodes[-1]

    def ready(self) -> None:
        """Wait until all nodes are there."""
        for wait in self._started:
            wait()

    def _start(self, *flags: str) -> Callable[[], None]:
        settings = ("--node-ip-address=127.0.0.1", "--disable-usage-stats", "--block")
        memory = f"--object-store-memory={80 << 20}"
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "ray"), "start", *settings, memory, *flags],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(("HPO_", "RAY_"))},
                # The hosts have the package as an installed one.
                "PYTHONPATH": str(ROOT),
                **self._auth,
            },
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.nodes.append(process)
        started, said = threading.Event(), []

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                # It writes this before it waits for its processes.
                if "--block" in line:
                    started.set()

        threading.Thread(target=listen, daemon=True).start()

        def wait() -> None:
            assert started.wait(_HANGS_S), "".join(said)

        return wait

    def actors(self) -> list[psutil.Process]:
        """The processes that hold a worker each."""
        found = (process for node in self.nodes for process in tree(node.pid))
        return [process for process in found if "WorkerActor" in _name(process)]

    def kill(self, node: subprocess.Popen[str]) -> None:
        """End everything on a node at once, as a power cut does."""
        send(signal.SIGKILL, tree(node.pid))
        node.wait()

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            # The head last would wait for the others.
            node.send_signal(signal.SIGSTOP)
        for node in self.nodes:
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    with suppress(psutil.Error):
        own = psutil.Process(pid)
        return [own, *own.children(recursive=True)]
    return []


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
