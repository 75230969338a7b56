"""The batch script of Slurm's tasks: its `#SBATCH` lines, and a loop that keeps one worker running.

A user's options pass through by their names:

    --slurm_time 4:00:00   or   slurm={"time": "4:00:00"}   ->   #SBATCH --time=4:00:00

Border: text. `slurm_queue` runs Slurm's commands. The script holds no URL, since its text can be
read in Slurm's records.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError
from hpo.launch.launcher import LOST

# A trial that is asked to stop ends its step and writes its checkpoint: seconds for most.
_SIGNAL = "B:USR1@120"
# Slurm sends the signal of the limit once, up to 60 s early. A worker that was started after it
# would hear of no limit, and one that has a minute or two left has hardly started.
_MARGIN_S = 180
# These hold the launcher's own values, or would start something else than one worker a task.
_OWN = {
    "array": "--workers is the number of tasks",
    "chdir": "start the run in the folder in which its workers are to run",
    "clusters": "start the run where 'sbatch' submits to that cluster",
    "error": "each worker's log holds its output and its errors",
    "export": "the workers get the environment of the run",
    "export_file": "the workers get the environment of the run",
    "get_user_env": "the workers get the environment of the run",
    "input": "a worker reads no input",
    "nodes": "a worker uses one host, and Slurm chooses it",
    "no_requeue": "without a run a task whose host died is queued again",
    "ntasks": "--workers is the number of tasks",
    "open_mode": "the logs are appended to",
    "output": "the logs are in the folder that 'run' names at its start (HPO_HOME)",
    "parsable": "'run' reads what sbatch prints",
    "requeue": "a task whose host died is queued again anyway",
    "test_only": "write --dry_run to see the script",
    "wait": "'run' waits for the workers anyway",
    "wrap": "the script starts the workers",
}
# It stands for a task's number at the end of a word; no path and no name has a NUL.
TASK = "\0"
_GPU_OPTIONS = ("gpus", "gpus_per_node", "gpus_per_socket", "gpus_per_task")
_GPU_RESOURCES = re.compile(r"\b(gpu|shard|mps)\b")
_NAME = re.compile(r"[a-z][a-z0-9_]+")

# A worker is started again inside the allocation for the same reasons as on a slot of this host:
# a new place in the queue takes minutes.
_LOOP = """\
worker= hit= asked= leave= lost=0 killed=0
# The signals are for the worker's first process alone: those of its trial end with it.
stop() { asked=1 hit=1; [ -z "$worker" ] || kill -TERM "$worker" 2>/dev/null; }
trap 'leave=1; stop' TERM
trap stop USR1
pause() { sleep "$1" & wait "$!"; }

# Seconds to the end of the allocation; 0 where Slurm does not answer.
left_s() {
    local end
    end=$(squeue --noheader --jobs="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" --format=%e)
    # It is NONE where there is no limit.
    end=$(date --date="${end/NONE/tomorrow}" +%s) && [ -n "$end" ] || end=0
    echo $((end - $(date +%s)))
}

while [ -z "$leave" ]; do
    # Before its end the allocation is left to the next task.
    [ -z "$asked" ] || [ "$(left_s)" -gt WORTH_S ] || break
    asked= began=$SECONDS
    "$@" &
    worker=$!
    # A signal may have come since the line above.
    [ -z "$asked" ] || kill -TERM "$worker" 2>/dev/null
    while :; do
        hit=
        wait "$worker"
        got=$?
        # 127: the wait before this one had its code already.
        [ "$got" -eq 127 ] || code=$got
        # A signal to this script ends `wait` before the worker has ended.
        [ -n "$hit" ] || break
    done
    worker=
    # It left because it was asked to, and its ticket was given back.
    [ -z "$asked" ] || continue
    [ $((SECONDS - began)) -lt 300 ] || lost=0 killed=0
    case $code in
        LOST) lost=$((lost + 1)); [ "$lost" -lt 5 ] || exit "$code" ;;
        129|130|137|143) killed=$((killed + 1)); pause "$((killed > 2 ? 15 : 0))" ;;
        *) exit "$code" ;;
    esac
    echo "the worker ended with code $code; it is started again in job $SLURM_JOB_ID" >&2
done
exit 0
"""


def script(
    argv: Sequence[str], *, tasks: Sequence[int], log: str, name: str, options: Mapping[str, Any]
) -> str:
    """The script of an array of tasks that differ in their number alone.

    Args:
        argv: A worker's command line, with `TASK` where its number stands.
        log: The path of a worker's log, in Slurm's form, with `%a` where its number stands.
        name: The job's.
        options: sbatch's, by names with underscores; they win over ours.
    """
    ours: dict[str, Any] = {
        "job_name": name,
        "array": array(tasks),
        "output": log,
        "open_mode": "append",
        "nodes": 1,
        "ntasks": 1,
        "signal": _SIGNAL,
        "requeue": True,
    }
    given = {**ours, **options}
    lines = [f"#SBATCH {line}" for line in directives(given)]
    # Without a time of its own it comes 60 s before the limit.
    ahead_s = int(str(given["signal"]).partition("@")[2] or 60)
    command = " ".join(map(_word, argv))
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "# One worker of a study; the study's HPO_STORAGE is in the environment.",
            f"set -- {command}",
            _LOOP.replace("LOST)", f"{LOST})").replace("WORTH_S", str(ahead_s + _MARGIN_S)),
        ]
    )


def _word(word: str) -> str:
    """A word of a command line as bash reads it."""
    before, task, after = word.partition(TASK)
    number = '"$SLURM_ARRAY_TASK_ID"' if task else ""
    return (shlex.quote(before) if before or not task else "") + number + after


def numbered(text: str, number: int) -> str:
    """A command line's word with `TASK` in place of the number that it ends with, as `slurm:3`."""
    ending = f":{number}"
    return text.removesuffix(ending) + f":{TASK}" if text.endswith(ending) else text


def log_pattern(log: Path) -> tuple[str, int]:
    """The path of a worker's log in Slurm's form, and the number of its task.

    `logs/worker-slurm-3.log` -> `logs/worker-slurm-%a.log`, 3
    """
    found = re.fullmatch(r"(.*?)(\d+)", log.stem)
    folder = str(log.parent).replace("%", "%%")
    if found is None:
        return f"{folder}/{log.name.replace('%', '%%')}", 0
    return f"{folder}/{found[1].replace('%', '%%')}%a{log.suffix}", int(found[2])


def array(tasks: Sequence[int]) -> str:
    """Numbers in the form of `--array`: `0-3,7`."""
    runs: list[list[int]] = []
    for task in sorted(tasks):
        if runs and task == runs[-1][-1] + 1:
            runs[-1].append(task)
        else:
            runs.append([task])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def directives(options: Mapping[str, Any]) -> list[str]:
    """Options of sbatch as the words of its command line."""
    return [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={_quoted(str(value))}")
        for name, value in options.items()
        if value is not None and value is not False
    ]


def _quoted(value: str) -> str:
    """A value as the lines of a script write it; sbatch takes quotes off."""
    return f'"{value}"' if re.search(r"[\s#']", value) else value


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """A user's options for sbatch, by their names with underscores.

    Raises:
        ConfigurationError: One is the launcher's own, or can stand in no line.
    """
    found = {}
    for given, value in options.items():
        name = str(given).replace("-", "_")
        flag = f"--slurm_{name}"
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{flag} is no option of sbatch; write the long name, as --slurm_partition"
            )
        if name in _OWN:
            raise ConfigurationError(f"{flag} cannot be set: {_OWN[name]}")
        if re.search(r'[\n\r"]', str(value)):
            raise ConfigurationError(f"{flag} {value!r} holds a quote or a new line")
        if name == "signal" and not re.fullmatch(r"B:(SIG)?(USR1|10)(@\d+)?", str(value)):
            raise ConfigurationError(
                f"{flag} {value!r}: the script obeys USR1 alone; write how many seconds before "
                "the limit it comes, as B:USR1@300"
            )
        found[name] = value
    return found


def asks_for_gpus(options: Mapping[str, Any]) -> str | None:
    """The name of a user's option that asks for GPUs; None without one."""
    for name in _GPU_OPTIONS:
        if options.get(name):
            return name
    for name in ("gres", "tres_per_task"):
        if _GPU_RESOURCES.search(str(options.get(name, ""))):
            return name
    return None
