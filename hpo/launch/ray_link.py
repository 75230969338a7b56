"""The run's side of the bridge to a Ray cluster: its process, and the workers that it tells of.

Border: hears and tells; `ray` starts workers through it, and `ray_bridge` is its other side.
"""

from __future__ import annotations

import json
import math
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_BRIDGE = (sys.executable, "-P", "-m", "hpo.launch.ray_bridge")
# The bridge gives up a host that does not answer after 5 s.
_KILLED_S = 8.0
# Leaving a cluster takes a second, and stopping one of this host some more.
_CLOSED_S = 15.0
_KILLED = -9


class RayProcess:
    """A worker in the cluster, as its bridge tells of it."""

    def __init__(self, tell: Callable[[str], bool], log: Path) -> None:
        self._tell, self._log = tell, log
        self._killed_at = math.inf
        self._code: int | None = None
        self._has_ended = threading.Event()
        self.began_at: float | None = None
        self.pid: int | None = None

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of the bridge; its lines come before its end."""
        if "host" in message:
            self.began_at = time.monotonic()
        if "text" in message:
            # A log that is full or gone must not end the thread that reads all others.
            with suppress(OSError), self._log.open("a", encoding="utf-8") as log:
                log.write(message["text"])
        if "code" in message:
            self.end(message["code"])

    def end(self, code: int) -> None:
        """Note its end; a later one, as of a bridge that has gone, changes nothing."""
        if self._code is None:
            self._code = code
            self._has_ended.set()

    def poll(self) -> int | None:
        return self._code

    def stop(self) -> None:
        if not self._tell("stop"):
            # There is no cluster in which it could have begun.
            self.end(0)

    def wait(self) -> int:
        # After a kill, as the bridge itself may hang. All are killed before one is waited for.
        left_s = self._killed_at + _KILLED_S - time.monotonic()
        self._has_ended.wait(None if left_s == math.inf else max(0.0, left_s))
        return _KILLED if self._code is None else self._code

    def kill(self) -> None:
        if self._code is None:
            self._killed_at = time.monotonic()
            if not self._tell("kill"):
                self.end(_KILLED)


class Link:
    """A bridge process, with the workers that it tells of.

    Args:
        first: The first line for it.
    """

    def __init__(self, environment: Mapping[str, str], first: Mapping[str, Any]) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            _BRIDGE,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            start_new_session=True,
        )
        self._heard = threading.Event()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._processes: dict[int, RayProcess] = {}
        self._connected: Mapping[str, Any] = {}
        self.tell(first)
        for target in (self._listen, self._write):
            threading.Thread(target=target, name="ray", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def connected(self) -> Mapping[str, Any]:
        """Wait for its first message; empty if it has ended before."""
        self._heard.wait()
        return self._connected

    def failure(self) -> str:
        """Why there is no cluster, or none any longer."""
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        why = self._connected.get("failed") or (lines[-1] if lines else "its driver has ended")
        if any("InvalidAuthToken" in line for line in lines):
            why += " (it asks for a token: RAY_AUTH_MODE=token, and its file)"
        return str(why)

    def tell(self, message: Mapping[str, Any]) -> bool:
        """Send a message; return False if it is not connected with a cluster.

        A bridge that has gone has ended all its workers.
        """
        self._lines.put(json.dumps(message) + "\n")
        return "ready" in self._connected

    def start(self, number: int, process: RayProcess, message: Mapping[str, Any]) -> None:
        """Start a worker."""
        self._processes[number] = process
        self.tell({"id": number, **message})
        if not self.is_alive:
            process.end(_KILLED)

    def _write(self) -> None:
        """Pass messages on; a bridge that looks for a cluster reads none, and a pipe holds few."""
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):
            while (line := self._lines.get()) is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        with suppress(OSError):
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "id" in message:
                self._processes[message["id"]].hear(message)
                if "code" in message:
                    del self._processes[message["id"]]
            else:
                self._connected = message
                self._heard.set()
        self._heard.set()
        self._process.wait()
        why = self.failure()
        for process in list(self._processes.values()):
            process.hear({"text": f"ray | the cluster is gone: {why}\n", "code": _KILLED})

    def close(self) -> None:
        """Have it leave the cluster and end."""
        self._lines.put(None)
        if "ready" not in self._connected:
            # It may try for a long time yet, and has started nothing.
            self._process.kill()
        try:
            self._process.wait(_CLOSED_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
