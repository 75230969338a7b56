"""Measure how long a trial rests after its worker or its host has died, and where it goes on.

    python benchmarks/recovery.py --out recovery.json
    python benchmarks/recovery.py --rows worker,host-database --times 3

    trainer         kill -9 of the process that trains
    worker          kill -9 of both processes of a worker
    run             kill -9 of a run with its worker; the same command at once
    actor           kill -9 of an actor on a Ray cluster of two nodes
    host-folder     kill -9 of all of one of two hosts, checkpoints in a shared folder
    host-file       the same, checkpoints at a `file://` URL
    host-database   the same, checkpoints in the database
    cut             one of two hosts without network, checkpoints in the database

The rest is the time from the kill to the beginning of the trial's next epoch in another process. It
is compared with a worker's start, from its first process to its first epoch, in the same run; of a
host with a lease (90 s), which others wait for. An idle worker waits on the second host. Needs root
for the second host's network. Printed are medians with smallest and largest figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from faults.database import Database
from faults.host import Host, namespaces, send
from faults.objective import Diary
from faults.ray_cluster import Cluster
from faults.relay import listener_at, relay
from peers.kept import described, say, spread

from hpo.database.schema import LEASE_S

_EPOCHS, _EPOCH_S = 60, 0.5
# A trial is broken off once it has done so many epochs: after 14 s, with a checkpoint of 10 s.
_BROKEN_AT = 28
_HANGS_S = 240.0
_POLL_S = 0.02


@dataclass(kw_only=True)
class Scene:
    """Hosts at work on one study.

    Attributes:
        cluster: The Ray cluster that holds the first host's workers; None for the host itself.
    """

    folder: Path
    diary: Diary
    database: Database
    hosts: list[Host] = field(default_factory=list)
    cluster: Cluster | None = None

    def start(self, name: str, *flags: str, trials: int, is_separate: bool = False) -> Host:
        """Start a run on a host."""
        home = self.folder / name
        home.mkdir()
        host = Host(
            name=name,
            arguments=[
                *("run", "--objective", str(self.diary.path), "--study_name", "recovery"),
                *("--n_trials", str(trials), "--epochs_per_trial", str(_EPOCHS)),
                *("--pruner", "none", "--workers", "1", *flags),
            ],
            home=home,
            url=self.database.url,
            log=self.folder / f"{name}.log",
            environment=self.cluster.environment if self.cluster else {},
            prefix=self._separated(name) if is_separate else (),
        )
        self.hosts.append(host)
        host.start()
        return host

    def _separated(self, name: str) -> list[str]:
        file, port = self.folder / "socket", self.database.port
        relay(listener_at(file), lambda: socket.create_connection(("127.0.0.1", port)))
        return namespaces(port=port, socket=file, name=name)

    def wait(self, found: Callable[[], Any]) -> Any:
        """Wait until a function returns something that is true; return that."""
        deadline = time.monotonic() + _HANGS_S
        while not (it := found()):
            if time.monotonic() > deadline:
                logs = [log.read_text()[-2000:] for log in self.folder.rglob("*.log")]
                raise SystemExit("nothing goes on; the logs end:\n" + "\n".join(logs))
            time.sleep(_POLL_S)
        return it

    def epochs(self, host: str | None = None) -> list[dict[str, Any]]:
        """The diary's lines of epochs, all or those of one host."""
        lines = [line for line in self.diary.lines() if line["epoch"] > 0]
        return [line for line in lines if host in (None, line["host"])]

    def broken(self, host: str | None, kill: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Kill what trains a trial in its midst; return what became of the trial.

        Args:
            kill: Called with the trial's last line.
        """
        last = self.wait(
            lambda: next((e for e in self.epochs(host) if e["epoch"] == _BROKEN_AT), None)
        )
        killed_at = time.monotonic()
        kill(last)

        def later() -> dict[str, Any] | None:
            others = (e for e in self.epochs() if e["x"] == last["x"] and e["at"] > killed_at)
            return next((e for e in others if e["attempt"] != last["attempt"]), None)

        before = max(e["epoch"] for e in self.epochs() if e["x"] == last["x"])
        found = self.wait(later)
        begun_at = found["at"] - _EPOCH_S
        return {
            "rest_s": begun_at - killed_at,
            "epochs_before": before,
            "goes_on_at": found["epoch"],
            "pid": found["pid"],
            "begun_at": begun_at,
        }


def _started_s(found: Mapping[str, Any]) -> float:
    """The time from the start of a line's worker, its supervisor, to its first epoch."""
    supervisor = psutil.Process(found["pid"]).ppid()
    # psutil's time of a start is off by up to a second, since it knows that of the boot in seconds.
    ticks = Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[19]
    since_boot = int(ticks) / os.sysconf("SC_CLK_TCK")
    return float(found["begun_at"] - since_boot)


def _one_host(scene: Scene, victims: Callable[[dict[str, Any]], Sequence[int]]) -> dict[str, Any]:
    scene.start("host-a", trials=1)
    found = scene.broken(
        None,
        lambda line: send(signal.SIGKILL, [psutil.Process(pid) for pid in victims(line)]),
    )
    found["start_s"] = _started_s(found)
    return found


def trainer(scene: Scene) -> dict[str, Any]:
    return _one_host(scene, lambda line: [line["pid"]])


def worker(scene: Scene) -> dict[str, Any]:
    return _one_host(scene, lambda line: [psutil.Process(line["pid"]).ppid(), line["pid"]])


def run(scene: Scene) -> dict[str, Any]:
    host = scene.start("host-a", trials=1)

    def kill(_: object) -> None:
        host.kill()
        host.start()

    return scene.broken(None, kill)


def actor(scene: Scene) -> dict[str, Any]:
    scene.cluster = cluster = Cluster(head=("--num-cpus=1",))
    cluster.add("--num-cpus=1")
    cluster.ready()
    scene.start("host-a", "--launcher", "ray", "--gpus_per_worker", "0", trials=1)
    found = scene.broken(None, lambda _: send(signal.SIGKILL, cluster.actors()))
    found["start_s"] = _started_s(found)
    return found


def _two_hosts(scene: Scene, where: str, break_: Callable[[Host], object]) -> dict[str, Any]:
    flags = ("--checkpoint_dir", where)
    lost = scene.start("host-b", *flags, trials=2, is_separate=True)
    scene.wait(lambda: scene.epochs("host-b"))
    scene.start("host-a", *flags, trials=2)
    return scene.broken("host-b", lambda _: break_(lost))


def _killed(scene: Scene, where: str) -> dict[str, Any]:
    return _two_hosts(scene, where, lambda host: host.kill())


def cut(scene: Scene) -> dict[str, Any]:
    return _two_hosts(scene, "database", lambda host: host.cut_off(scene.database.port))


ROWS: Mapping[str, Callable[[Scene], dict[str, Any]]] = {
    "trainer": trainer,
    "worker": worker,
    "run": run,
    "actor": actor,
    "host-folder": lambda scene: _killed(scene, str(scene.folder / "shared")),
    "host-file": lambda scene: _killed(scene, f"file://{scene.folder}/shared"),
    "host-database": lambda scene: _killed(scene, "database"),
    "cut": cut,
}


def perform(name: str) -> dict[str, Any]:
    """Perform a row once."""
    folder = Path(tempfile.mkdtemp(prefix=f"hpo-recovery-{name}-", dir="/tmp"))
    folder.chmod(0o755)
    database = Database(folder / "server")
    with ExitStack() as stack:
        stack.callback(database.stop)
        scene = Scene(
            folder=folder,
            diary=Diary(folder, epoch_s=_EPOCH_S),
            database=database,
        )

        def close() -> None:
            for host in scene.hosts:
                host.end(grace_s=0.0)
            if scene.cluster is not None:
                scene.cluster.close()

        stack.callback(close)
        found = {"commit": described(), **ROWS[name](scene)}
    if len(scene.hosts) > 1:
        found["of_a_lease"] = found["rest_s"] / LEASE_S
    elif "start_s" in found:
        found["starts"] = found["rest_s"] / found["start_s"]
    return found


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The rows as Markdown."""
    head = ["row", "times", "rest, s", "a worker's start, s", "in starts", "in leases", "goes on"]
    lines = [head, ["---"] * len(head)]
    for name, times in found.items():
        columns = [
            spread([one[key] for one in times], 2) if key in times[0] else "-"
            for key in ("rest_s", "start_s", "starts", "of_a_lease")
        ]
        again = max(one["epochs_before"] + 1 - one["goes_on_at"] for one in times)
        lines.append([name, str(len(times)), *columns, f"{again} epochs again"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Measure rows, print the table; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="names, with commas (default: all)")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file of all figures, as JSON, by row")
    given = parser.parse_args()
    names = given.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(given.times):
        for name in names:
            found[name].append(perform(name))
            say(f"{name}: {json.dumps(found[name][-1])}")
            if given.out is not None:
                given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
