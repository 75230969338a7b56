"""A host of its own: namespaces for network, processes and name, and a relay to the server.

    unshare --net --pid --uts ... python relay.py PORT SOCKET NAME COMMAND...

Inside, the server's port on 127.0.0.1 is a relay to a socket file, which the campaign relays to the
server. Packets between the run and its relay can then be dropped without a word to either.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_CHUNK_BYTES = 65_536


def relay(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Serve a listener in threads: connect each of its clients onwards."""

    def serve() -> None:
        # It ends when the listener is closed.
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=_join, args=(client, connect), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def _join(client: socket.socket, connect: Callable[[], socket.socket]) -> None:
    try:
        server = connect()
    except OSError:
        client.close()
        return
    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
    back.start()
    _pump(client, server)
    back.join()
    client.close()
    server.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(_CHUNK_BYTES):
            sink.sendall(chunk)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def to_file(path: Path) -> socket.socket:
    """A connection to a socket file, which reaches from one network namespace into another."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def listener_at(path: Path) -> socket.socket:
    """A listener at a socket file."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def main() -> int:
    """Be the first process of the host: relay, run the command, collect what is orphaned."""
    port, path, name, *command = sys.argv[1:]
    socket.sethostname(name)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    relay(socket.create_server(("127.0.0.1", int(port))), lambda: to_file(Path(path)))
    process = subprocess.Popen(command)
    while True:
        pid, status = os.wait()
        if pid == process.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main() & 0xFF)
