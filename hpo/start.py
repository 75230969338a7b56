"""The interpreter of all processes that run objectives: one hash seed, no folder first on the path.

    python -m hpo run   ->  PYTHONHASHSEED=0 python -P -m hpo run

`hash` of a text, and with it the order of a set, is the same in every process. Without `-P` the
working folder comes first on the path of `python -m hpo`, and a file there, `models.py` or
`random.py`, would be imported in place of ours or of Python's.

Border: imports nothing but `os`, `sys` and `hpo.environ`, because such a file may be there still.
"""

from __future__ import annotations

import os
import sys

from hpo import environ

# The first words of the command line of a process of this program.
PROGRAM = (sys.executable, "-P", "-m", "hpo")


def restart() -> None:
    """Execute this process's command line anew, in the same process, unless it is as it should be.

    Python's own flags are kept. With `-E`, `-I` or `-R` such an interpreter does not read the hash
    seed, and nothing more is done. The processes that it starts have it all the same.
    """
    flags = sys.flags
    is_seeded = environ.is_hash_seeded() or not flags.hash_randomization
    is_fixed = flags.safe_path and is_seeded
    if is_fixed or flags.ignore_environment or os.name != "posix" or not sys.executable:
        return
    safe_path = [] if flags.safe_path else ["-P"]
    command = [sys.executable, *safe_path, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, environ.variables())
