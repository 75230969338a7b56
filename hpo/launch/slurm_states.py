"""States of Slurm's tasks: what Slurm prints, and what an end means for a fleet.

Border: text. `slurm_queue` runs the commands that print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpo.errors import ConfigurationError
from hpo.launch.launcher import LOST

# What squeue is asked for each task.
FIELDS = "ArrayJobID:|,ArrayTaskID:|,State:|,Reason:|,exit_code:|"
# Ends of a task that Slurm chose. All other words are of tasks that run, or will.
_ENDS: Mapping[str, int] = {
    "BOOT_FAIL": -9,
    "CANCELLED": -15,
    "COMPLETED": 0,
    "DEADLINE": -15,
    "FAILED": 1,
    "LAUNCH_FAILED": -9,
    "NODE_FAIL": -9,
    # Its trial took more memory than the task has.
    "OUT_OF_MEMORY": LOST,
    "PREEMPTED": -15,
    "REVOKED": -9,
    "TIMEOUT": -15,
}
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")
# The signal by which Slurm says that it could not open a task's output.
_NO_OUTPUT = 53


@dataclass(frozen=True, kw_only=True)
class State:
    """What Slurm says of a task.

    Attributes:
        word: Its state in Slurm's words.
        reason: Why it waits, in Slurm's words.
        code: Its exit code, or the negative number of a signal; None while it runs or waits.
    """

    word: str
    reason: str = ""
    code: int | None = None

    @property
    def has_started(self) -> bool:
        return self.word not in _WAITING

    @property
    def is_leaving(self) -> bool:
        """True if Slurm ends its processes, which may take as long as the cluster's KillWait."""
        return self.word == "COMPLETING"

    @property
    def sentence(self) -> str:
        """Why Slurm ended it, for a task that did not end by itself."""
        if self.code == ConfigurationError.exit_code and self.word == "FAILED" and self.reason:
            return self.reason
        return "" if self.word in ("COMPLETED", "FAILED") else f"Slurm ended the task: {self.word}"


def parsed(printed: str) -> dict[str, State]:
    """States by `JOB_TASK`, of the lines that squeue prints."""
    found = {}
    for line in printed.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) >= 5 and fields[1].isdecimal():
            found[f"{fields[0]}_{fields[1]}"] = state(*fields[2:5])
    return found


def records(printed: str) -> dict[str, State]:
    """States by `JOB_TASK`, of the lines `JobID|State|ExitCode` that sacct prints."""
    found = {}
    for line in printed.splitlines():
        fields = line.split("|")
        if len(fields) == 3 and fields[1]:
            # 'CANCELLED by 1000'
            found[fields[0]] = state(fields[1].split()[0], "", fields[2])
    return found


def state(word: str, reason: str, status: str) -> State:
    """A task's state, of its word and its status: `CODE:SIGNAL`, or a number as `wait` has it."""
    if word not in _ENDS:
        return State(word=word, reason=reason)
    given, has_both, by = status.partition(":")
    number = int(given) if given.isdecimal() else 0
    signal = int(by or 0) if has_both else number & 0x7F
    code = 0 if signal else number if has_both else number >> 8
    if signal == _NO_OUTPUT:
        why = (
            "Slurm could not open the worker's log on its host; the folder must be one that all "
            "hosts share (HPO_HOME)"
        )
        return State(word=word, reason=why, code=ConfigurationError.exit_code)
    if word in ("COMPLETED", "FAILED") and (code or signal):
        return State(word=word, code=code or -signal)
    return State(word=word, code=_ENDS[word])
