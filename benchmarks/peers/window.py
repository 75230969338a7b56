"""A measured window: from where all workers are warm until enough trials have ended.

The first trials of each worker, with imports and first reads, are left out, of all peers alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from peers.running import Running

_POLL_S = 0.2
# A worker of a large study needs some 20 s for its start, on two busy cores several times that.
_STUCK_S = 240.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """A window's size.

    Attributes:
        warm: Trials of each worker that are left out.
        timed: Trials that are measured, or fewer if the time is over.
        longest_s: Longest time of the window.
    """

    warm: int = 3
    timed: int = 30
    longest_s: float = 15.0


def measure(begin: Sequence[Callable[[], Running]], size: Size) -> list[dict[str, Any]]:
    """Run the workers of some peers at the same time; return each peer's figures of one window.

    The window ends when all peers have run enough trials, or with its time.
    """
    with ExitStack() as stack:
        peers = []
        for one in begin:
            peers.append(one())
            stack.callback(peers[-1].close)
        begun = time.monotonic()
        while not all(peer.is_warm(size.warm) for peer in peers):
            if time.monotonic() - begun > _STUCK_S:
                raise RuntimeError(f"not all workers were warm after {_STUCK_S:.0f} s")
            time.sleep(_POLL_S)
        warm_s = time.monotonic() - begun
        first = last = [peer.state() for peer in peers]
        while not all(
            b.ended - a.ended >= size.timed or b.at - a.at >= size.longest_s
            for a, b in zip(first, last, strict=True)
        ):
            time.sleep(_POLL_S)
            last = [peer.state() for peer in peers]
        return [
            {"warm_s": round(warm_s, 2), **peer.figures(a, b)}
            for peer, a, b in zip(peers, first, last, strict=True)
        ]
