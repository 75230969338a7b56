"""A row's stage: folders, server, hosts, and the times of its fault."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from faults.database import Database
from faults.host import Host, namespaces, send
from faults.objective import EPOCHS, Diary
from faults.ray_cluster import Cluster, tree
from faults.relay import listener_at, relay

TRIALS = 80
STUDY = "campaign"
# A server of 64 MB and its log fit with room for a study; the rest is soon filled.
_SMALL_BYTES = 400 << 20
_POLL_S = 0.2
_WITHIN = "SELECT count(*) FROM hpo.leases WHERE epoch BETWEEN 1 AND 9"
# A run that has not ended so long after its fault hangs. The healthy study takes 90 s.
_HANGS_S = 420.0
# A run has half a minute to end its workers after SIGTERM.
_GRACE_S = 60.0
# A filling write ends with a few bytes, so that no row of a table fits beside it.
_FILL_BYTES = (1 << 20, 4096, 1)


class Interrupted(Exception):
    """The campaign is to end."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: what is done to which runs.

    Attributes:
        title: Description for the table.
        act: What is done once the hosts have started their runs.
        workers: Workers of each host.
        hosts: Environment of each host.
        is_separate: True if the last host has a network, processes and a name of its own.
        small: Which folder lies on a small disk: `server` or `home`.
        settings: Settings of the server.
        nodes: Cores of each node of a Ray cluster that holds the workers; none for this machine.
        runs: Number of commands of each host, the last of which must end with 0.
        checks_times: True if the times of trials are compared with the diary's.
    """

    name: str
    title: str
    act: Callable[[Stage], None]
    workers: int = 6
    hosts: Sequence[Mapping[str, str]] = ({},)
    is_separate: bool = False
    small: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    nodes: Sequence[int] = ()
    runs: int = 1
    checks_times: bool = False

    @property
    def needs_root(self) -> bool:
        return self.is_separate or self.small is not None


class Stage:
    """One performance of a row.

    Attributes:
        ended_before: Number of trials that had ended when the fault began.
        blows: Number of kills or restarts in a fault that repeats them.
        deaths: Times of kills, each with the processes that were killed.
        began, ended: Times of the fault by the monotonic clock; None without a fault.
    """

    def __init__(self, row: Row, folder: Path, stopped: threading.Event) -> None:
        self.row, self.folder, self._stopped = row, folder, stopped
        self.diary = Diary(folder)
        self.ended_before = self.blows = 0
        self.began: float | None = None
        self.ended: float | None = None
        self.database = Database(folder / "server")
        self.hosts: list[Host] = []
        self.deaths: list[tuple[float, set[int]]] = []
        self.cluster: Cluster | None = None

    def begin(self) -> None:
        """Start the row's runs."""
        if self.row.settings:
            self.database.settings(**self.row.settings)
        if self.row.nodes:
            first, *others = self.row.nodes
            self.cluster = Cluster(head=(f"--num-cpus={first}",))
            for cores in others:
                self.cluster.add(f"--num-cpus={cores}")
            self.cluster.ready()
        for number, environment in enumerate(self.row.hosts):
            name = f"host-{'abc'[number]}"
            is_separate = self.row.is_separate and number == len(self.row.hosts) - 1
            home = self.folder / name
            home.mkdir(exist_ok=True)
            host = Host(
                name=name,
                arguments=self._arguments(),
                home=home,
                url=self.database.url,
                log=self.folder / f"{name}.log",
                environment={
                    **{k: v.format(folder=self.folder) for k, v in environment.items()},
                    **(self.cluster.environment if self.cluster else {}),
                },
                prefix=self._separated(name) if is_separate else (),
            )
            self.hosts.append(host)
            host.start()

    def _arguments(self) -> list[str]:
        return [
            *("--objective", str(self.diary.path), "--study_name", STUDY),
            *("--n_trials", str(TRIALS), "--workers", str(self.row.workers)),
            *("--epochs_per_trial", str(EPOCHS), "--pruner", "benchmarks.faults.reading:pruner"),
            *(("--launcher", "ray", "--gpus_per_worker", "0") if self.row.nodes else ()),
        ]

    def _separated(self, name: str) -> list[str]:
        import socket

        file, port = self.folder / "socket", self.database.port
        relay(listener_at(file), lambda: socket.create_connection(("127.0.0.1", port)))
        return namespaces(port=port, socket=file, name=name)

    @property
    def is_over(self) -> bool:
        """True if no command runs any longer."""
        ended = [host.has_ended() for host in self.hosts]
        return all(ended)

    def wait_for(self, trials: int) -> None:
        """Wait until this many trials have ended, or no command runs."""
        self.wait(lambda: self.diary.ended() >= trials)

    def hold(self, seconds: float) -> None:
        """Let a fault last, but not longer than the runs."""
        deadline = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= deadline)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, or until no command runs."""
        while not condition() and not self.is_over:
            if self._stopped.wait(_POLL_S):
                raise Interrupted

    @contextmanager
    def fault(self, *, after: int = 6) -> Iterator[None]:
        """Note when a fault begins and ends; it begins while all workers are within a trial.

        They begin their first trials together. A fault that followed the end of one would meet most
        of them between two trials.
        """
        self.wait_for(after)
        workers = self.row.workers * len(self.hosts)
        self.wait(lambda: self.database.query(_WITHIN) == [(workers,)])
        self.ended_before, self.began = self.diary.ended(), self.began or time.monotonic()
        yield
        self.ended = time.monotonic()

    def kill_actor(self, chosen: random.Random) -> None:
        """kill -9 of an actor of the cluster, whose worker ends with it."""
        assert self.cluster is not None
        if actors := self.cluster.actors():
            actor = chosen.choice(actors)
            self._note_death(actor.pid)
            send(signal.SIGKILL, [actor])

    def kill_node(self) -> None:
        """kill -9 of all processes of the cluster's last node at once."""
        assert self.cluster is not None
        node = self.cluster.nodes[-1]
        self._note_death(node.pid)
        self.cluster.kill(node)

    def _note_death(self, pid: int) -> None:
        self.deaths.append((time.monotonic(), {process.pid for process in tree(pid)}))
        self.blows += 1

    def finish(self) -> bool:
        """Wait for the runs; return False if one had to be ended."""
        deadline = time.monotonic() + _HANGS_S
        self.wait(lambda: time.monotonic() > deadline)
        has_ended = self.is_over
        for host in self.hosts:
            host.end(grace_s=_GRACE_S)
        return has_ended

    def again(self) -> int:
        """The exit code of the first host's command, started once more."""
        host = self.hosts[0]
        host.start()
        deadline = time.monotonic() + _HANGS_S
        self.wait(lambda: time.monotonic() > deadline)
        host.end(grace_s=_GRACE_S)
        return host.codes.pop()

    def close(self) -> None:
        """End what is left."""
        for host in self.hosts:
            host.end(grace_s=0.0)
        if self.cluster is not None:
            self.cluster.close()
        self.database.stop()


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk of a folder to its last byte."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in _FILL_BYTES:
            with suppress(OSError):
                while file.write(b"x" * size):
                    continue
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def staged(row: Row, stopped: threading.Event) -> Iterator[Stage]:
    """A stage in a folder that PostgreSQL's account can reach; it is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"hpo-campaign-{row.name}-", dir="/tmp"))
    folder.chmod(0o755)
    small = folder / {"server": "server", "home": "host-a"}.get(row.small or "", "")
    if row.small:
        small.mkdir()
        size = f"size={_SMALL_BYTES},mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "campaign", small], check=True)
    stage = None
    try:
        stage = Stage(row, folder, stopped)
        yield stage
    finally:
        if stage is not None:
            stage.close()
        if row.small:
            subprocess.run(["umount", "--lazy", small], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def keep_logs(stage: Stage, out: Path) -> None:
    """Copy the logs and the diary of a performance."""
    shutil.rmtree(out, ignore_errors=True)
    for path in (*stage.folder.rglob("*.log"), *stage.folder.glob("*.jsonl")):
        target = out / path.relative_to(stage.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def refusal(row: Row) -> str | None:
    """The reason why a row cannot be performed here; None if it can."""
    if row.needs_root and os.geteuid() != 0:
        return "it needs root, for namespaces and mounts"
    needed = ("unshare", "nsenter", "iptables", "ip") if row.is_separate else ()
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        return f"install {', '.join(missing)}"
    preloaded = {path for host in row.hosts if (path := host.get("LD_PRELOAD"))}
    if any(not Path(path).exists() for path in preloaded):
        return "install faketime"
    return None
