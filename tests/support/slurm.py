"""A Slurm cluster of this machine alone: a controller, a daemon that runs tasks, and munge.

It takes the programs of Debian's packages `slurmctld`, `slurmd`, `slurm-client` and `munge`, and
root. The host has more CPUs in Slurm's view than in fact, so that several tasks run at a time.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
_START_S = 20.0
_CONFIGURATION = """\
ClusterName=hpo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=4096 State=UNKNOWN
NodeName=far[1-2] NodeAddr=192.0.2.1 CPUs=8 State=DOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=wide Nodes={host},far[1-2] MaxTime=INFINITE State=UP
"""


def refusal() -> str | None:
    """The reason why no cluster runs here; None if one does."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"it needs {', '.join(missing)} (slurmctld, slurmd, slurm-client and munge)"
    return None if os.geteuid() == 0 else "Slurm's daemons need root here"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin"


class Cluster:
    """A running cluster.

    Attributes:
        environment: The variable by which Slurm's commands find it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start munge, the controller and the daemon, and wait until tasks can run."""
        munge = self.folder / "munge"
        for folder in (munge, self.folder / "state", self.folder / "spool"):
            folder.mkdir(mode=0o755)
        key = munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = platform.node().partition(".")[0]
        text = _CONFIGURATION.format(folder=self.folder, host=host, ports=_free_ports(2))
        (self.folder / "slurm.conf").write_text(text)
        files = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid"}
        words = [f"--{flag}={munge / name}" for flag, name in files.items()]
        self._launch(["munged", "--foreground", "--force", f"--seed-file={munge}/seed", *words])
        self._wait(lambda: (munge / "socket").exists())
        self._launch(["slurmctld", "-D", "-c"])
        self._launch(["slurmd", "-D", "-c"])
        self._wait(lambda: "idle" in self.said("sinfo", "--noheader", "--format=%t", "-p", "debug"))

    def _launch(self, argv: Sequence[str]) -> None:
        with (self.folder / f"{argv[0]}.out").open("ab") as output:
            process = subprocess.Popen(
                argv,
                env={**os.environ, **self.environment, "PATH": _path()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._daemons.append(process)

    def _wait(self, condition) -> None:
        deadline = time.monotonic() + _START_S
        while not condition():
            if time.monotonic() > deadline:
                logs = [path.read_text(errors="replace")[-2000:] for path in self._outputs()]
                raise RuntimeError("\n".join(["Slurm did not start", *logs]))
            time.sleep(0.1)

    def _outputs(self) -> list[Path]:
        return [*self.folder.glob("*.out"), *self.folder.glob("*.log")]

    def said(self, *argv: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(
            argv,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def tasks(self, states: str = "running") -> list[str]:
        """The tasks in some states, as `12_3`."""
        printed = self.said("squeue", "--noheader", "--array", f"--states={states}", "-o", "%F_%K")
        return sorted(printed.split())

    def kill_worker(self, task: str) -> None:
        """kill -9 of all processes of a task's worker, but not of its script."""
        number = task.rpartition("_")[2]
        for process in psutil.process_iter(["cmdline", "environ"]):
            with suppress(psutil.Error):
                own = (process.info["environ"] or {}).get("SLURM_ARRAY_TASK_ID")
                if own == number and "worker" in process.info["cmdline"]:
                    process.kill()

    def readable_by(self, user: str) -> str:
        """All files of the cluster, and all environments of processes, that a user may read."""
        code = f"cat $(find {self.folder} -type f) /proc/[0-9]*/environ 2> /dev/null"
        words = ["setpriv", f"--reuid={user}", "--clear-groups", "sh", "-c", code]
        done = subprocess.run(words, capture_output=True, check=False)
        return done.stdout.decode(errors="replace")

    def stop(self) -> None:
        """End all tasks, and then the daemons."""
        self.said("scancel", "--user=root")
        deadline = time.monotonic() + _START_S
        while self.said("squeue", "--noheader").strip() and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in reversed(self._daemons):
            process.terminate()
        for process in self._daemons:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster in a folder that all users can enter; it is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
