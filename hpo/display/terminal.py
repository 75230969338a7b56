"""The terminal that a command writes to: whether it was closed meanwhile.

Border: asks the system alone, so that it costs no import.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress


def is_hung_up() -> bool:
    """Return whether stdout or stderr is a terminal that was closed.

    Where SIGHUP is ignored, or goes to another group of processes, the writer gets EIO alone; a
    file on a broken disk gives the same error, so the terminal itself is asked.
    """
    with suppress(ImportError):
        import termios

        for descriptor in (1, 2):
            try:
                termios.tcgetattr(descriptor)
            except termios.error as error:
                if error.args[0] == errno.EIO:
                    return True
    return False


def refuse_hung_up() -> None:
    """Raise the OSError that writing to a closed terminal raises, if this one is closed."""
    if is_hung_up():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
