"""GPUs reserved for one run of this host at a time, whoever's runs they are.

A name in Linux's abstract namespace of Unix sockets belongs to one process, and is free again once
that has ended, however it did: there is no file to leave behind, and none that another user may not
write. A container with a network of its own has its own names. Elsewhere nothing is reserved.

Border: holds names, and waits where others hold all; `slots` finds GPUs.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from hpo.errors import RunInterrupted
from hpo.machine.slots import Slot

# The kernel's `struct ucred`: process, user and group, three integers.
_CREDENTIALS = struct.Struct("3i")
_ANSWER_S = 1.0
# A GPU that another run gives back is taken within this time.
_POLL_S = 1.0


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


def reserved(
    slots: Sequence[Slot],
    reservations: Reservations,
    *,
    say: Callable[[str], object],
    stop: threading.Event,
    timeout_s: float | None = None,
    most: int | None = None,
) -> list[Slot]:
    """The slots whose GPUs no other run of this host has; these are reserved. Waits for one.

    Args:
        most: The number of slots that are wanted; None for all.

    Raises:
        RunInterrupted: It was stopped, or the time was over, before one was free.
    """
    began_at, has_said = time.monotonic(), False
    gpus = {slot.gpu: slot for slot in slots if slot.gpu is not None}
    while True:
        free, taken = _free(slots, reservations, most=most)
        held = ", ".join(
            f"{dict(gpus[gpu].environment)['CUDA_VISIBLE_DEVICES']} (process {pid or 'unknown'})"
            for gpu, pid in taken.items()
        )
        if free:
            if taken:
                say(f"GPUs that other runs of this host use are left to them: {held}")
            return free
        if not has_said:
            say(f"waiting for a GPU; other runs of this host use all of them: {held}")
            has_said = True
        if stop.wait(_POLL_S):
            raise RunInterrupted("the run was stopped while it waited for a GPU")
        if timeout_s is not None and time.monotonic() - began_at > timeout_s:
            raise RunInterrupted(f"{timeout_s:g} s are over, and no GPU has become free")


def _free(
    slots: Sequence[Slot], reservations: Reservations, *, most: int | None
) -> tuple[list[Slot], Mapping[str, int | None]]:
    """The first slots that are free or ours, and the GPUs before them that others hold."""
    free: list[Slot] = []
    taken: dict[str, int | None] = {}
    for slot in slots:
        if len(free) == most:
            break
        if slot.gpu is not None and slot.gpu not in taken:
            taken |= reservations.take([slot.gpu])
        if slot.gpu is None or slot.gpu not in taken:
            free.append(slot)
    return free, taken
