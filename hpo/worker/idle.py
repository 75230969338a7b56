"""A worker between two tickets: gives lost ones back now and then, and waits for one to be open.

Border: looks and waits. `worker` takes tickets. No torch is needed here, so that a fleet can be
simulated by processes that are small.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable

from hpo.tickets.budget import Tickets
from hpo.tickets.leases import Outlook, is_dead
from hpo.tickets.touch import Keys

# With notices a look serves for what sends none, as a lease that has been silent for 90 s. 500 idle
# workers look 17 times a second together.
_LISTENING_S = 30.0
# Without notices the time grows from look to look, by a half each.
_POLL_S, _GROWTH = (0.5, 5.0), 1.5
# All idle workers are told of a ticket at the same time, and one of them gets it. Spread over this
# time, most of the others find it taken at one look, which takes no lock.
_SPREAD_S = 0.1
# An open ticket that cannot be taken, because a run holds all of them still, is tried again.
_IN_VAIN_S = (0.1, 1.0)
# The processes of this host that hold leases are looked up this often; that asks no database.
_DEATHS_S = 1.0
# All workers of a host together look for lost leases this often, when they have tickets.
_SWEEP_S = 5.0

_logger = logging.getLogger(__name__)


class Idle:
    """The time of a worker without a ticket; a context that ends it.

    Args:
        worker: The key of the worker's row in the crew, which its looks touch; None without one.
        renew: Called when others have taken the worker for lost.
    """

    def __init__(
        self,
        tickets: Tickets,
        stop: threading.Event,
        worker: Keys | None = None,
        renew: Callable[[], object] = bool,
    ) -> None:
        self._tickets, self._stop = tickets, stop
        self._worker, self._renew, self._is_paused = worker, renew, False
        self._notices = tickets.notices()
        self._in_vain = 0
        self._sweep_at = -math.inf

    def __enter__(self) -> Idle:
        return self

    def __exit__(self, *_: object) -> None:
        self._notices.close()

    def end(self) -> None:
        """Note that the worker has got a ticket."""
        self._in_vain = 0

    def sweep(self) -> None:
        """Give back lost tickets, if it is this worker's turn.

        Each of a host's workers waits longer the more of them have leases, so that their looks are
        as many as those of one. Nobody is chosen, whose death would have to be noticed.
        """
        if time.monotonic() >= self._sweep_at:
            self._look()

    def wait(self) -> Outlook:
        """Wait until a ticket is open or all have ended, or until the worker is to stop."""
        if self._in_vain:
            first_s, longest_s = _IN_VAIN_S
            self._stop.wait(min(longest_s, first_s * 2 ** (self._in_vain - 1)) * _jitter())
        pause_s = _POLL_S[0]
        while True:
            # What is opened between the look and the notices would not be seen.
            self._notices.listen()
            found = self._look()
            is_over = found.is_over or found.is_spent or found.is_drained
            if found.is_open or is_over or self._stop.is_set():
                # What follows has this connection: at the server's limit there may be no other.
                self._notices.rest()
                self._in_vain = self._in_vain + 1 if found.is_open else 0
                return found
            self._in_vain = 0
            is_listening = self._notices.connection is not None
            pause = (_LISTENING_S if is_listening else pause_s) * _jitter()
            if found.expires_s is not None and found.expires_s > 0:
                # Of a worker that beats there are 85 s left, of a host that died what it says.
                pause = min(pause, found.expires_s + random.uniform(_SPREAD_S, 1.0))
            self._pause(pause, found)
            pause_s = min(pause_s * _GROWTH, _POLL_S[1])

    def _look(self) -> Outlook:
        found = self._tickets.outlook(self._notices, self._worker)
        if not found.is_known:
            self._renew()
        if found.is_paused != self._is_paused:
            self._is_paused = found.is_paused
            waits = "is paused: waiting for 'python -m hpo resume'"
            _logger.info("the study %s", waits if found.is_paused else "goes on after a pause")
        share = max(1, len(found.processes))
        self._sweep_at = time.monotonic() + _SWEEP_S * share * _jitter()
        if found.has_lost():
            self._notices.rest()
            if self._tickets.sweep():
                return self._tickets.outlook(worker=self._worker)
        return found

    def _pause(self, seconds: float, found: Outlook) -> None:
        """Wait for a notice, or for the death of a process that holds a lease."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0 and not self._stop.is_set():
            if self._notices.wait(min(left_s, _DEATHS_S), self._stop):
                self._stop.wait(random.uniform(0.0, _SPREAD_S))
                return
            if any(map(is_dead, found.processes)):
                return


def _jitter() -> float:
    """A factor that keeps workers which began to wait at the same time from looking at the same."""
    return random.uniform(0.75, 1.25)
