"""Slurm's commands: submit a script, read the states of tasks, signal and cancel them.

Border: runs `sbatch`, `squeue`, `sacct`, `scancel` and `sinfo`; `slurm_states` reads what they say
of tasks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpo import environ
from hpo.errors import ConfigurationError, RunFailed
from hpo.launch.slurm_states import FIELDS, State, parsed, records

# The commands of a controller that does not answer give up after a minute or more.
ANSWER_S = 10.0
# The controller may take a minute to write a job down; what is given up here may still be queued.
_SUBMIT_S = 120.0
# A user's defaults for these commands would hide our tasks from a run, or spare them.
_DEFAULTS = ("SQUEUE_", "SCANCEL_", "SINFO_", "SACCT_", "SLURM_CLUSTERS")
# sbatch takes these from the environment, and prefers them to the script's own lines.
_OVERRIDING = {
    f"SBATCH_{name}"
    for name in (
        *("ARRAY_INX", "CLUSTERS", "ERROR", "EXPORT", "GET_USER_ENV", "INPUT", "NO_REQUEUE"),
        *("OPEN_MODE", "OUTPUT", "REQUEUE", "SIGNAL", "WAIT"),
    )
}
_PASSING = re.compile(r"unable to contact|timed out|temporarily|try again|not responding|connect")


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition of a cluster.

    Attributes:
        name: What it is called in a sentence.
        hosts: The host names of its nodes, as far as they are known.
        has_gpus: True if a node is known to have GPUs.
    """

    name: str
    hosts: Sequence[str] = ()
    has_gpus: bool = False

    @property
    def is_without_gpus(self) -> bool:
        """True if its nodes are known, and none has a GPU."""
        return bool(self.hosts) and not self.has_gpus


class Busy(RunFailed):
    """Slurm does not answer, or takes no job at present."""


def require() -> None:
    """Check that Slurm's commands are on this host.

    Raises:
        ConfigurationError: They are not.
    """
    missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise ConfigurationError(
            f"--launcher slurm needs Slurm's commands, and '{missing[0]}' is not on PATH; start "
            "the run on a login node of the cluster"
        )


def submit(script: str, environment: Mapping[str, str]) -> int:
    """Submit a script; return the number of its job.

    Args:
        environment: sbatch's, which the job gets. It is in no argument and no file of the user's.

    Raises:
        ConfigurationError: Slurm refuses the job.
        Busy: Slurm does not answer.
    """
    done = _run(
        ["sbatch", "--parsable", "--export=ALL"], script, environment=environment, limit_s=_SUBMIT_S
    )
    found = re.match(r"\d+", done.stdout.strip())
    if done.returncode == 0 and found is not None:
        return int(found[0])
    said = _last(done.stderr) or _last(done.stdout) or f"it ended with code {done.returncode}"
    if _PASSING.search(said.lower()):
        raise Busy(f"Slurm takes no job now: {said}")
    raise ConfigurationError(f"Slurm refuses the job: {said}; change --slurm_* or --workers")


def states() -> dict[str, State]:
    """The states of this user's tasks, also of those that ended in the last minutes.

    Raises:
        Busy: Slurm does not answer.
    """
    # One line for each task, whether it waits, runs or has ended.
    words = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
    done = _run([*words, f"--Format={FIELDS}"])
    if done.returncode != 0:
        raise Busy(f"squeue: {_last(done.stderr)}")
    return parsed(done.stdout)


def recorded(tasks: Iterable[str]) -> dict[str, State]:
    """The states of ended tasks in Slurm's records; none where no records are kept."""
    if shutil.which("sacct") is None:
        return {}
    words = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode"]
    try:
        done = _run([*words, f"--jobs={','.join(tasks)}"])
    except Busy:
        # The records are another daemon's, for which the states of the other tasks do not wait.
        return {}
    return records(done.stdout) if done.returncode == 0 else {}


def ask_to_stop(tasks: Sequence[str]) -> None:
    """Send SIGTERM to the scripts of tasks that run.

    None may be waiting: Slurm has one record for all waiting tasks of an array, with the number of
    the array, and other tasks got the signal that one of these was sent (seen with 22.05).

    Raises:
        Busy: Slurm does not answer.
    """
    # With --full the processes of a trial would get it too, whose end would fail the trial.
    _scancel("--batch", "--signal=TERM", *tasks)


def cancel(tasks: Sequence[str]) -> None:
    """Take tasks from the queue, or end them: SIGTERM to all their processes, later SIGKILL.

    Raises:
        Busy: Slurm does not answer.
    """
    _scancel(*tasks)


def _scancel(*words: str) -> None:
    done = _run(["scancel", *words])
    # It fails for tasks that have ended meanwhile, too.
    if done.returncode != 0 and _PASSING.search(done.stderr.lower()):
        raise Busy(f"scancel: {_last(done.stderr)}")


def partition(name: str | None) -> Partition:
    """A partition, the default one for None; without hosts if Slurm does not say."""
    chosen = [] if name is None else [f"--partition={name}"]
    shown = f"partition '{name}'" if name else "the default partition"
    if shutil.which("sinfo") is None:
        return Partition(name=shown)
    done = _run(["sinfo", "--noheader", "--Node", "--format=%P|%n|%G", *chosen])
    rows = [[field.strip() for field in line.split("|")] for line in done.stdout.splitlines()]
    # A star marks the default partition.
    nodes = [row[1:] for row in rows if len(row) == 3 and (name or row[0].endswith("*"))]
    has_gpus = any(re.search(r"\bgpu\b", resources) for _, resources in nodes)
    return Partition(name=shown, hosts=[host for host, _ in nodes], has_gpus=has_gpus)


def _run(
    argv: Sequence[str],
    script: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    limit_s: float | None = None,
) -> subprocess.CompletedProcess[str]:
    limit_s = ANSWER_S if limit_s is None else limit_s
    try:
        return subprocess.run(
            list(argv),
            input=script,
            stdin=subprocess.DEVNULL if script is None else None,
            env=without_defaults(environ.variables() if environment is None else environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
            # Ctrl-C at a terminal is for the run alone.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise Busy(f"{argv[0]} did not answer within {limit_s:g} s") from error
    except OSError as error:
        raise Busy(f"{argv[0]} cannot be started: {error.strerror}") from error


def without_defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the user's own defaults for Slurm's commands."""
    return {name: environment[name] for name in environment if not name.startswith(_DEFAULTS)}


def without_own_job(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what Slurm has set for a job in which this process itself runs."""
    found = {}
    for name, value in without_defaults(environment).items():
        is_own_jobs = name.startswith(("SLURM_", "SLURMD_")) and name != "SLURM_CONF"
        if not is_own_jobs and name not in _OVERRIDING:
            found[name] = value
    return found


def _last(text: str) -> str:
    """The last line that says something, without the program's name."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^\w+: (error|fatal): ", "", lines[-1]) if lines else ""
