"""A network with a round trip of its own: a TCP proxy that holds each packet back.

    python -m peers.network TARGET_PORT ROUND_TRIP_MS

Prints its port. It is a process of its own, as its threads would share an interpreter's lock. Each
direction sleeps half of the round trip after it has read, so that large answers come in parts of
`_CHUNK_BYTES`: at 1 ms some 2 GB/s, which is no limit here.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress

_CHUNK_BYTES = 1 << 20


def main() -> None:
    """Serve until killed."""
    target, round_trip_ms = int(sys.argv[1]), float(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", target))
        for source, sink in ((client, server), (server, client)):
            # Nagle's algorithm would add delays of its own.
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ends = (source, sink, round_trip_ms / 2000)
            threading.Thread(target=_pump, args=ends, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, delay_s: float) -> None:
    with suppress(OSError):
        while chunk := source.recv(_CHUNK_BYTES):
            time.sleep(delay_s)
            sink.sendall(chunk)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
