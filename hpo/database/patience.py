"""Waiting for a database that is away: what is retried, for how long, and who ends the waiting.

A process has one patience, one deadline and one request to end; they hold for all its threads.
Border: `faults` knows what an outage is, and is imported for one; nothing here connects.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

# A command is waited for by its user. A run and its workers wait for `--patience`.
PATIENCE_S = 45.0
_PAUSES_S = (0.1, 2.0)
# A shorter one is not worth a word, and no lease ends by it.
_BRIEF_S = 1.0
# A try that meets one takes at most this long: so long a connection of the pool is waited for.
_TRY_S = 10.0
# A long outage is told again at this interval.
_TELL_S = 60.0
# A server takes a second to start, and one that cannot start fails as fast.
_REVIVE_S = 5.0
# Between two looks at whether the waiting must end.
_LOOK_S = 0.2

_logger = logging.getLogger(__name__)
T = TypeVar("T")


class _Outages:
    """The outages that the threads of this process see.

    A connection that broke and was replaced is none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._began_at = self._told_at = self._ended_at = self._revived_at = -math.inf
        self.count, self.seconds = 0, 0.0
        self.revive: Callable[[], object] | None = None

    def enter(self, began_at: float) -> None:
        with self._lock:
            if not self._waiting:
                self._began_at, self._told_at = began_at, -math.inf
            self._waiting += 1

    def leave(self, *, is_over: bool) -> None:
        with self._lock:
            self._waiting -= 1
            now, is_told = time.monotonic(), self._told_at > self._began_at
            is_last = not self._waiting
            if now - self._began_at >= _BRIEF_S:
                self._ended_at = now
                self.count += is_last
                self.seconds += (now - self._began_at) if is_last else 0.0
        if is_over and is_told and is_last:
            _logger.warning("the database is back after %.0f s", now - self._began_at)

    def note(self, error: Exception, left_s: float) -> None:
        """Log an outage that lasts, once a minute, and have the server started again."""
        from hpo.database.faults import AWAY, fault, reason

        with self._lock:
            now = time.monotonic()
            is_due = now - self._began_at >= _BRIEF_S and now - self._told_at >= _TELL_S
            # A server that answers, but not as it should, is alive.
            is_dead = self.revive is not None and fault(error) is AWAY
            is_revival_due = is_dead and now - self._revived_at >= _REVIVE_S
            self._told_at = now if is_due else self._told_at
            self._revived_at = now if is_revival_due else self._revived_at
        if is_due:
            text = "%s: %s; trying again for up to %s"
            _logger.warning(text, fault(error).what, reason(error), _in_words(left_s))
        if is_revival_due and self.revive is not None:
            # Recovery may take minutes, in which Ctrl-C must end the waiting.
            threading.Thread(target=_quietly, args=(self.revive,), daemon=True).start()

    def since_s(self) -> float:
        with self._lock:
            now = time.monotonic()
            is_away = self._waiting and now - self._began_at >= _BRIEF_S
            return 0.0 if is_away else now - self._ended_at


_outages = _Outages()
_hurried = threading.Event()
_patience_s = PATIENCE_S
_deadline = math.inf
_end: threading.Event | None = None


def set_patience(seconds: float) -> None:
    """Have this process wait that long for a database that is away."""
    global _patience_s
    _patience_s = seconds


def give_up_at(deadline: float | None) -> None:
    """End all waiting of this process at a time of the monotonic clock; None for no such time."""
    global _deadline
    _deadline = math.inf if deadline is None else deadline


def end_with(event: threading.Event | None) -> None:
    """End all waiting of this process while an event is set; None for no such event."""
    global _end
    _end = event


def reset() -> None:
    """Have this process wait as before its run, whose patience, deadline and server are over."""
    set_patience(PATIENCE_S)
    give_up_at(None)
    end_with(None)
    on_outage(None)


def stop_waiting() -> None:
    """End all waiting of this process for the database, because the user wants it to end."""
    _hurried.set()


def is_hurried() -> bool:
    """True if `stop_waiting` was called."""
    return _hurried.is_set()


def must_end() -> bool:
    """True if nothing may wait any longer: the user wants it to end, or the time is over."""
    is_asked = _hurried.is_set() or (_end is not None and _end.is_set())
    return is_asked or time.monotonic() >= _deadline


def on_outage(revive: Callable[[], object] | None) -> None:
    """Have `revive` called, in a thread of its own, every few seconds of an outage."""
    _outages.revive = revive


def since_outage_s() -> float:
    """Seconds since this process last saw the database away: 0 during an outage, inf without."""
    return _outages.since_s()


def outages() -> tuple[int, float]:
    """The number of outages that this process has waited out, and their time in s."""
    return _outages.count, _outages.seconds


def with_retries(work: Callable[[], T]) -> T:
    """Return the result of `work`, retried while the database is away, for the patience's time.

    `work` must be one transaction, or safe to repeat.
    """
    deadline = min(time.monotonic() + _patience_s, _deadline)
    pause_s, longest_s = _PAUSES_S
    is_away = is_over = False
    try:
        while True:
            tried_at = time.monotonic()
            try:
                result = work()
            except Exception as error:
                # It imports SQLAlchemy for 0.1 s, and a run starts its first worker before that.
                from hpo.database.faults import is_outage, is_rollback

                now = time.monotonic()
                left_s = deadline - now
                if not is_outage(error) or left_s <= 0 or must_end():
                    raise
                # A deadlock is over when one of its transactions is.
                if not is_away and not is_rollback(error):
                    is_away = True
                    # The outage may have begun in the middle of a long statement.
                    _outages.enter(max(tried_at, now - _TRY_S))
                if is_away:
                    _outages.note(error, left_s)
            else:
                is_over = True
                return result
            _pause(min(pause_s, left_s))
            pause_s = min(2 * pause_s, longest_s)
    finally:
        if is_away:
            _outages.leave(is_over=is_over)


def _pause(seconds: float) -> None:
    """Wait, but no longer than until all waiting must end."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0 and not must_end():
        _hurried.wait(min(left_s, _LOOK_S))


def _quietly(revive: Callable[[], object]) -> None:
    try:
        revive()
    except Exception as error:
        _logger.warning("the server cannot be started again: %s", error)


def _in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
