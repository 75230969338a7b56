"""Waiting for an answer of the server, so that Ctrl-C is obeyed meanwhile.

psycopg2 blocks in C, where signals wait for the answer. With this callback it waits here, and
libpq's own `connect_timeout` no longer holds, so the time of a connection is kept here, too. The
callback is for all of a process, in which psycopg2 has no COPY and no large objects then. So only
commands install it that do not train or evaluate in their own process.
"""

from __future__ import annotations

import math
import os
import select
import socket

# psycopg2 imports it in C and drops whatever that raises: Ctrl-C in those 20 ms would be lost.
import ssl  # noqa: F401
import time
from contextlib import suppress

import psycopg2
from psycopg2 import extensions

from hpo.database.patience import is_hurried, must_end

# A dead host must be reported in less than 5 s.
CONNECT_S = 3.0
# An interrupted process gives the server this long from one part of an answer to the next. One with
# its time over still reads its result, in statements that may take some seconds.
_HURRIED_S, _OVERTIME_S = 2.0, 20.0
_TOO_LATE = "no answer in the {:.0f} s after the interruption"
# Between two looks at whether it is to end.
_LOOK_MS = 200

_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}
_CONNECTED = (
    *(extensions.STATUS_READY, extensions.STATUS_BEGIN, extensions.STATUS_PREPARED),
    *(extensions.STATUS_SYNC, extensions.STATUS_ASYNC),
)


def install() -> None:
    """Have all connections of this process wait by `_wait`."""
    extensions.set_wait_callback(_wait)


def is_readable(connection: extensions.connection) -> bool:
    """Return whether an idle connection has something to read: mostly, that it is closed."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _wait(connection: extensions.connection) -> None:
    """Wait until the connection is made, or the statement has its answer."""
    if connection.status in _CONNECTED:
        _wait_for_answer(connection)
    else:
        _wait_for_connection(connection)


def _wait_for_answer(connection: extensions.connection) -> None:
    while (state := connection.poll()) != extensions.POLL_OK:
        hurried_s = 0.0
        while not _is_ready(connection.fileno(), state):
            if must_end():
                hurried_s += _LOOK_MS / 1000
                most_s = _HURRIED_S if is_hurried() else _OVERTIME_S
                if hurried_s >= most_s:
                    raise psycopg2.OperationalError(_TOO_LATE.format(most_s))


def _wait_for_connection(connection: extensions.connection) -> None:
    """Wait for a connection, for `CONNECT_S` for each address of the server."""
    deadline, is_late, tried = math.inf, False, 0
    try:
        while (state := connection.poll()) != extensions.POLL_OK:
            # libpq may have gone on with the next address, and its socket have the same descriptor.
            if (now := os.fstat(connection.fileno()).st_ino) != tried:
                tried, deadline = now, time.monotonic() + CONNECT_S
            while not _is_ready(connection.fileno(), state):
                if is_hurried() and time.monotonic() > deadline - CONNECT_S + _HURRIED_S:
                    raise psycopg2.OperationalError(_TOO_LATE.format(_HURRIED_S))
                if time.monotonic() > deadline:
                    # libpq now finds this address dead, and goes on with the next one, if any.
                    _shut(connection.fileno())
                    deadline, is_late = time.monotonic() + CONNECT_S, True
    except psycopg2.OperationalError as error:
        if not is_late:
            raise
        where = str(error).strip().splitlines()[0].rpartition(" failed: ")[0]
        text = f"{where or 'connection to server'} failed: no answer within {CONNECT_S:.0f} s"
        raise psycopg2.OperationalError(text) from None


def _is_ready(descriptor: int, state: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, _EVENTS[state])
    return bool(poller.poll(_LOOK_MS))


def _shut(descriptor: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connected:
        connected.shutdown(socket.SHUT_RDWR)
