"""A trainer's pulse: what it does now and for how long it may, in memory that its supervisor reads.

Border: one record, written by the trainer at each phase of its training and read by the process
that watches it, without a system call or a lock.
"""

from __future__ import annotations

import mmap
import os
import statistics
import struct
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

# The default limit of a phase: 5 min, or 20 times its median, whichever is longer.
_LEAST_S = 300.0
_MEDIANS = 20.0
# The median of the latest durations follows a training that becomes slower.
_KEPT = 101
# A median over so many durations changes little with one more, so it is computed once in these.
_EVERY = 16

# Sequence number, ticket, attempt, limit of the phase (0 for none), its name, the study's uid. A
# reader may see a record that is being written; what it decides on has stood for some time.
_RECORD = struct.Struct("<qqqd32s36s")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A trainer's pulse as its supervisor reads it.

    Attributes:
        beginnings: Number of phases begun so far, which changes whenever the training advances.
        ticket: The ticket whose trial it trains; 0 for none.
        attempt: The attempt at it.
        study_uid: The study that it belongs to.
        phase: The part of an objective that runs now; empty outside of an objective.
        limit_s: The phase's limit; 0 for none.
    """

    beginnings: int
    ticket: int
    attempt: int
    study_uid: str
    phase: str
    limit_s: float


class Pulse:
    """The record of one trainer, shared with the process that it was forked from.

    Args:
        stall_s: Limit of each phase; None for the greater of 5 min and 20 times its median.

    Attributes:
        raised_in: The phase in which the last exception left a block of `closing`; empty if the
            service itself raised it.
        outside_error: The last exception that left a block of `outside`.
    """

    def __init__(self, stall_s: float | None = None) -> None:
        # The last byte is the supervisor's: 1 once it has asked the trainer to stop.
        self._memory = mmap.mmap(-1, _RECORD.size + 1)
        self._stall_s = stall_s
        self._held = (0, 0, "")
        self._beginnings = 0
        self._pid = 0
        self.raised_in = ""
        self.outside_error: BaseException | None = None
        self._phase, self._began_at = "", time.monotonic()
        self._durations: Mapping[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._limits: dict[str, float] = {}
        self._counts: Counter[str] = Counter()

    def hold(self, ticket: int, attempt: int = 0, study_uid: str = "") -> None:
        """Note the ticket whose trial is trained from now on; 0 for none."""
        self._pid = os.getpid()
        self._held = (ticket, attempt, study_uid)
        self.begin("")

    def begin(self, phase: str) -> None:
        """Note that a phase of the training begins; an empty one is ours and has no limit."""
        if self._pid not in (0, os.getpid()):
            # A hook has forked and returned in the child too, which shares our connections.
            os._exit(1)
        now = time.monotonic()
        if self._phase:
            self._note(self._phase, now - self._began_at)
        self._phase, self._began_at = phase, now
        self._beginnings += 1
        limit_s = self._limits.get(phase, self._stall_s or _LEAST_S) if phase else 0.0
        ticket, attempt, study_uid = self._held
        names = (phase.encode(), study_uid.encode())
        _RECORD.pack_into(self._memory, 0, self._beginnings, ticket, attempt, limit_s, *names)

    def _note(self, phase: str, duration_s: float) -> None:
        """Add a duration of a phase, and update its limit now and then."""
        kept = self._durations[phase]
        kept.append(duration_s)
        self._counts[phase] += 1
        if self._stall_s is None and (len(kept) < _EVERY or self._beginnings % _EVERY == 0):
            self._limits[phase] = max(_LEAST_S, _MEDIANS * statistics.median(kept))

    @contextmanager
    def closing(self) -> Iterator[None]:
        """End the phase when an exception of any class leaves the block.

        What ends the process instead, as `os._exit` does, leaves it: the supervisor sees where.
        """
        self.outside_error = None
        try:
            yield
        except BaseException:
            self.raised_in = self._phase
            self.begin("")
            raise

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Leave an objective's phase while it calls back into the service."""
        phase = self._phase
        self.begin("")
        try:
            yield
        except BaseException as error:
            self.outside_error = error
            raise
        finally:
            self.begin(phase)

    @property
    def phase(self) -> str:
        """The phase that runs now; empty outside of an objective."""
        return self._phase

    @property
    def phase_s(self) -> float:
        """The time since it began, in s."""
        return time.monotonic() - self._began_at

    def step_s(self) -> float | None:
        """The mean time of the latest steps, in s; None without one.

        On a GPU a step is only queued, and every few steps a diagnosis waits for all of them. So
        its time is theirs, too.
        """
        if not self._counts["step"]:
            return None
        mean = {name: statistics.fmean(list(self._durations[name])) for name in self._counts}
        waits = self._counts["diagnosis"] / self._counts["step"]
        return mean["step"] + waits * mean.get("diagnosis", 0.0)

    def ask_to_stop(self) -> None:
        """Note that the trainer is asked to stop from outside."""
        self._memory[_RECORD.size] = 1

    @property
    def is_asked_to_stop(self) -> bool:
        """True once the trainer was asked to stop, and did not send itself the signal."""
        return self._memory[_RECORD.size] == 1

    def read(self) -> Reading:
        """Read the record of the process that was forked with it."""
        beginnings, ticket, attempt, limit_s, *names = _RECORD.unpack_from(self._memory, 0)
        phase, study_uid = (name.rstrip(b"\0").decode(errors="replace") for name in names)
        return Reading(
            beginnings=beginnings,
            ticket=ticket,
            attempt=attempt,
            study_uid=study_uid,
            phase=phase,
            limit_s=limit_s,
        )
