"""A host of a row: the command with its workers, its home, and its connection to the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
_ENDS = ("--dport", "--sport")


@dataclass(kw_only=True)
class Host:
    """A run on its host.

    Attributes:
        name: Its name; the kernel knows it by this one only if it has a namespace for that.
        prefix: Words before the command, which give it namespaces.
        codes: Exit codes of the commands that ended, in order.
        wall_s: Time from its first start to its last end.
    """

    name: str
    arguments: Sequence[str]
    home: Path
    url: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    codes: list[int] = field(default_factory=list)
    wall_s: float = 0.0
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0

    def start(self) -> None:
        """Start the command, or the same one again."""
        self._started_at = self._started_at or time.monotonic()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HPO_")}
        own = {"HPO_HOME": str(self.home), "HPO_STORAGE": self.url, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "hpo", *self.arguments],
                env={**inherited, **own, **self.environment},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        """Return whether its command has ended, whose exit code is kept."""
        if self._process is not None and self._process.poll() is not None:
            self.codes.append(self._process.returncode)
            self.wall_s = time.monotonic() - self._started_at
            self._process = None
        return self._process is None

    def processes(self) -> list[psutil.Process]:
        """The command's process, then all below it."""
        if self._process is None:
            return []
        try:
            own = psutil.Process(self._process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[list[psutil.Process]]:
        """The processes of each worker, that which the run started first."""
        if self._process is None:
            return []
        try:
            started = psutil.Process(self._process.pid).children()
            return [[worker, *worker.children(recursive=True)] for worker in started]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """kill -9 of the run and all its workers at once."""
        send(signal.SIGKILL, self.processes())
        self._collect()

    def end(self, *, grace_s: float) -> None:
        """Interrupt the command; kill what is left after a grace."""
        processes = self.processes()
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        send(signal.SIGKILL, [*processes, *self.processes()])
        self._collect()

    def _collect(self) -> None:
        if self._process is not None:
            self._process.wait()
        self.has_ended()

    def cut_off(self, port: int) -> None:
        """Drop all packets to and from the server's port inside of the host's own network."""
        self._iptables("-A", port)

    def reconnect(self, port: int) -> None:
        """Let the packets through again."""
        self._iptables("-D", port)

    def _iptables(self, action: str, port: int) -> None:
        # The first process below `unshare` is the host's first one.
        first = str(self.processes()[1].pid)
        for end in _ENDS:
            rule = ("INPUT", "-p", "tcp", end, str(port), "-j", "DROP")
            subprocess.run(["nsenter", "-t", first, "-n", "iptables", action, *rule], check=True)


def send(number: signal.Signals, processes: Sequence[psutil.Process]) -> None:
    """Send a signal to processes, some of which may have ended."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def namespaces(*, port: int, socket: Path, name: str) -> list[str]:
    """Words before a command that make it the only one on a host of its own."""
    return [
        *("unshare", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"),
        *(sys.executable, str(Path(__file__).with_name("relay.py")), str(port), str(socket), name),
    ]
