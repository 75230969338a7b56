"""Run the command line: `python -m hpo`, and the console script `hpo`."""

import os
import sys
import threading
from contextlib import suppress

from hpo.start import restart


def main() -> int:
    """Run a command in an interpreter that was started as every process of this program is."""
    restart()
    from hpo.cli import main

    code = main()
    others = [each for each in threading.enumerate() if each is not threading.main_thread()]
    if not all(each.daemon for each in others):
        # An objective has left threads, for whose end Python would wait.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
