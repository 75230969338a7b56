"""Heartbeats: a thread that renews a lease, and one that watches the parent process."""

from __future__ import annotations

import logging
import os
import threading

from sqlalchemy.exc import SQLAlchemyError

from hpo.tickets.budget import BEAT_S, Tickets
from hpo.tickets.ticket import Ticket

# An orphaned worker notices within this time. One call of `getppid` a second costs nothing.
_PARENT_S = 1.0

_logger = logging.getLogger(__name__)


class Beat:
    """A thread that renews a lease every `BEAT_S`, and at once when progress is noted.

    Attributes:
        is_lost: True once the lease belongs to another worker.
        is_away: True while the database does not answer.
    """

    def __init__(self, tickets: Tickets, ticket: Ticket) -> None:
        self._tickets, self._ticket = tickets, ticket
        self._progress: dict[str, float | int | None] = {}
        self._wake, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self.is_lost = False
        self.is_away = False

    def note(self, **progress: float | int | None) -> None:
        """Have the thread store this progress with a beat at once; return without waiting."""
        self._progress |= progress
        self._wake.set()

    def __enter__(self) -> Beat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.is_set() and not self.is_lost:
            try:
                self.is_lost = not self._tickets.beat(self._ticket.run_uid, dict(self._progress))
            except SQLAlchemyError as error:
                # The lease survives short outages; the next beat finds out if it is still ours.
                _logger.warning("ticket %d | no beat: %s", self._ticket.ticket, error)
            self._wake.wait(BEAT_S)
            self._wake.clear()


def watch_parent(parent: int, stop: threading.Event) -> None:
    """Set `stop` when the process that started this one has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            if stop.wait(_PARENT_S):
                return
        _logger.warning("the process that started this worker is gone; stopping")
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()
