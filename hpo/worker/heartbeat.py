"""Heartbeat: a thread that renews a lease, and hears that a trial was ended or taken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database.faults import reason
from hpo.database.schema import LEASE_S
from hpo.tickets.budget import BEAT_S, Tickets
from hpo.tickets.ticket import Ticket
from hpo.worker import rotation
from hpo.worker.pulse import Pulse

# Progress is stored at most this often: short epochs need no beat each.
_LEAST_S = 1.0
# After a beat that failed the next one follows sooner: a lease must not be lost to a short outage.
_RETRY_S = 1.0

_logger = logging.getLogger(__name__)


class Beat:
    """A thread that renews a lease every `BEAT_S`, and within a second when progress is noted.

    Each beat also asks for the state of the trial, which another program may have ended.

    Args:
        measure: Called at each beat; what it returns is stored with the progress, by columns.

    Attributes:
        is_away: True if the last beat failed, so that the database is better not waited for.
        is_over: True once the trial was ended or deleted by another program.
        cancelled: The number of the trial that an operator has cancelled; None for none.
        is_drained: True if this worker is to leave after its trial.
        gives_back: True if the study is paused, and its trials are to be given back.
    """

    def __init__(
        self,
        tickets: Tickets,
        ticket: Ticket,
        pulse: Pulse,
        measure: Callable[[], Mapping[str, float | None]] = dict,
    ) -> None:
        self._tickets, self._ticket, self._pulse = tickets, ticket, pulse
        self._measure = measure
        self._progress: dict[str, float | int | None] = {}
        self._wake, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self._renewed_at = _now()
        self._is_taken = False
        self._state: sa.Select[tuple[TrialState]] | None = None
        self.is_away, self.is_over = False, False
        self.cancelled: int | None = ticket.cancelled
        self.is_drained, self.gives_back = False, False

    @property
    def is_lost(self) -> bool:
        """True if the lease may belong to another worker.

        A worker whose beats fail, for whatever reason, counts its lease as lost when it has run
        out, by the worker's own clock: the database may be in another's reach.
        """
        return self._is_taken or _now() - self._renewed_at > LEASE_S

    def watch(self, state: sa.Select[tuple[TrialState]]) -> None:
        """Have each beat read the state of the trial by this statement."""
        self._state = state

    def forget(self) -> None:
        """Forget the trial; the ticket goes on with another one, which repeats it."""
        self._progress.clear()
        self._state, self.is_over = None, False

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
        # The lease was taken a moment ago, which counts as a beat.
        beaten_at = time.monotonic()
        while not self._is_taken:
            self._wake.wait(_RETRY_S if self.is_away else BEAT_S)
            self._wake.clear()
            if self._done.wait(max(0.0, beaten_at + _LEAST_S - time.monotonic())):
                return
            beaten_at = time.monotonic()
            rotation.look()
            try:
                self._beat()
            except Exception as error:
                # A thread that ended here would let a living trial go; the next beat tries again.
                if not self.is_away:
                    _logger.warning("ticket %d | no beat: %s", self._ticket.ticket, reason(error))
                self.is_away = True

    def _beat(self) -> None:
        now, state = _now(), self._state
        phase: dict[str, Any] = {
            "phase": self._pulse.phase or None,
            "phase_s": round(self._pulse.phase_s, 1),
        }
        told = {**self._progress, **phase, **self._measure()}
        renewed = self._tickets.beat(self._ticket.run_uid, told, state)
        self._is_taken, self.is_away = renewed is None, False
        if renewed is not None:
            self._renewed_at = now
            self.cancelled, self.is_drained = renewed.cancelled, renewed.is_drained
            self.gives_back = renewed.gives_back
            # The ticket may have gone on with another trial meanwhile.
            if state is not None and state is self._state:
                self.is_over = renewed.state != TrialState.RUNNING


def _now() -> float:
    """The time by a clock that no one sets, and that goes on while the host sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
