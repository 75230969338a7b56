"""Remedies for the error messages of PostgreSQL's programs and of the file system.

Border: text in, text out; nothing here examines the machine.
"""

from __future__ import annotations

import re

ELSEWHERE = "write another folder in HPO_HOME"
_REASON = re.compile(r"FATAL|PANIC|ERROR:|error:|(?i:cannot|could not) fork")

# The first pattern that fits counts. All messages are English, because LC_ALL=C is set.
_CURES = (
    (r"shared memory", "make room in /dev/shm (a container's: --shm-size=256m)"),
    (r"No space left|quota exceeded", f"make room there ('df -h' and 'df -i'), or {ELSEWHERE}"),
    (r"File too large", "lift the limit on a file's size ('ulimit -f unlimited')"),
    (r"Read-only file system", f"mount it for writing, or {ELSEWHERE}"),
    (
        r"Not a directory|File exists",
        f"a file is where a folder is needed; move it, or {ELSEWHERE}",
    ),
    (r"file descriptors|Too many open files", "allow more open files ('ulimit -n 1024')"),
    # pg_ctl and initdb query each other's version through a pipe. If they cannot fork, they report
    # the other program as missing.
    (
        r"temporarily unavailable|annot fork|annot allocate|needed by (pg_ctl|initdb)|command \"",
        "end other programs, or allow more processes ('ulimit -u'; a container's: --pids-limit) "
        "and memory",
    ),
    (
        r"ermission denied|invalid permissions|wrong ownership|not permitted",
        "give it to the account that PostgreSQL runs as ('chown -R hpo-postgres' under root, mode "
        f"700) and let it pass through each folder above ('chmod o+x'), or {ELSEWHERE}",
    ),
    (r"configuration file|parameter", "mend what the log says of postgresql.conf"),
    (
        r"pg_control|pg_wal|could not (open|read|locate)|not exist|missing|incompatible|corrupt|"
        r"nvalid",
        "its files are damaged: restore the folder, or move it away to begin with an empty "
        "database",
    ),
)
# A server that is still starting gives other answers, and waiting for it helps.
_LASTING = re.compile(
    r"could not (open|read|access|fork|map)|does not exist|corrupt|unexpected data|"
    r"out of memory|incompatible|No space left"
)


def telling_line(output: str) -> str:
    """The last line with a program's reason, else the last line; without timestamp."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["nothing"]
    reasons = [line for line in lines if _REASON.search(line)]
    return re.sub(r"^.*? UTC \[\d+\] ", "", (reasons or lines)[-1])


def cure(said: str) -> str:
    """The remedy for an error message."""
    found = (what for pattern, what in _CURES if re.search(pattern, said))
    return next(found, f"mend that, or {ELSEWHERE}")


def is_lasting(refusal: str) -> bool:
    """Return whether a server that refuses a connection with this message will do it again."""
    return _LASTING.search(refusal) is not None
