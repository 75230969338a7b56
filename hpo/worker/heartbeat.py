"""Signs of life: the thread that renews a lease, and the one that watches for the parent's end."""

from __future__ import annotations

import logging
import os
import threading

from sqlalchemy.exc import SQLAlchemyError

from hpo.tickets.budget import BEAT_S, Tickets
from hpo.tickets.ticket import Ticket

_PARENT_S = 1.0

_logger = logging.getLogger(__name__)


class Beat:
    """The lease's heart: a thread that renews it and carries progress, at once when noted."""

    def __init__(self, tickets: Tickets, ticket: Ticket) -> None:
        self._tickets, self._ticket = tickets, ticket
        self._progress: dict[str, float | int | None] = {}
        self._wake, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self.is_lost = False

    def note(self, **progress: float | int | None) -> None:
        """Have others see this progress; returns at once."""
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
                # The lease outlives short outages; whether it is still ours the next beat tells.
                _logger.warning("ticket %d | no beat: %s", self._ticket.ticket, error)
            self._wake.wait(BEAT_S)
            self._wake.clear()


def watch_parent(parent: int, stop: threading.Event) -> None:
    """Ask for a stop when the process that started this one is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            if stop.wait(_PARENT_S):
                return
        _logger.warning("the process that started this worker is gone; stopping")
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()
