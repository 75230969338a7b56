"""GPUs reserved for one run of this host at a time, whoever's runs they are.

A name in Linux's abstract namespace of Unix sockets belongs to one process, and is free again once
that has ended, however it did: there is no file to leave behind, and none that another user may not
write. A container with a network of its own has its own names. Elsewhere nothing is reserved.

Border: holds names; `slots` finds GPUs, and `hpo.launch.engine` says what happens if none is free.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

# The kernel's `struct ucred`: process, user and group, three integers.
_CREDENTIALS = struct.Struct("3i")
_ANSWER_S = 1.0


class Reservations:
    """The GPUs that this process has reserved, until it closes them or ends."""

    def __init__(self) -> None:
        self._held: dict[str, socket.socket] = {}

    def take(self, gpus: Iterable[str]) -> Mapping[str, int | None]:
        """Reserve GPUs by their identifiers.

        Returns:
            Those that another process holds, each with its process id; None where it is unknown,
            as it is for a process of another container.
        """
        taken: dict[str, int | None] = {}
        for gpu in gpus:
            if gpu in self._held or sys.platform != "linux":
                continue
            own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                own.bind(_name(gpu))
                # Whoever finds the name taken asks it for this process's id.
                own.listen()
            except OSError:
                own.close()
                taken[gpu] = _holder(gpu)
            else:
                self._held[gpu] = own
        return taken

    def close(self) -> None:
        """Give all of them back."""
        for own in self._held.values():
            own.close()
        self._held.clear()


def _name(gpu: str) -> str:
    return f"\0hpo/gpu/{gpu}"


def _holder(gpu: str) -> int | None:
    """The process that holds a GPU."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, suppress(OSError):
        asking.settimeout(_ANSWER_S)
        asking.connect(_name(gpu))
        found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(found)[0]) or None
    return None
