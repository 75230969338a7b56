"""The process above a trainer, which ends it when it hangs, and notes why it ended.

A worker is two processes. `fork` leaves this one behind before torch is imported, so that it takes
20 to 40 MB; the trainer is its child, and has the connections to the database. What a dying process
cannot say for itself is said here: a crash, memory that ran out, a step that never ended.

Border: one trainer, from its start to its end. It never looks into a trial.
"""

from __future__ import annotations

import faulthandler
import logging
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO, TYPE_CHECKING

import psutil

from hpo.errors import RunFailed
from hpo.launch import children
from hpo.launch.launcher import LOST
from hpo.worker import rotation
from hpo.worker.causes import CRASHES, OomKills, innermost, is_stopped, signal_name
from hpo.worker.pulse import Pulse, Reading

# A trainer's end is noticed within this time.
_POLL_S = 0.1
# Writing the stacks of all threads takes some milliseconds.
_DUMP_S = 3.0
# An orphaned trainer notices within this time. One call of `getppid` a second costs nothing.
_PARENT_S = 1.0
# A trainer has this long to save its state after its supervisor was killed.
_ORPHAN_S = 15.0
_DUMP_SIGNAL = signal.SIGUSR2
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# With a ticket in hand the trainer itself never ends with one of these.
_FOREIGN_CODES = (0, 2)
# A trainer that was for one trial ends with this code. An objective that exits with it holds a
# ticket, and the other codes of the service are 0 to 3 and 130.
SPENT = 75

if TYPE_CHECKING:
    from hpo.tickets.losses import Count

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of a trainer.

    Attributes:
        status: Its exit code, or the negative number of the signal that ended it.
        cause: The end in words.
        held: Its pulse in that moment, with the ticket whose trial it held.
        count: The kind of loss; None for a worker that ended because it was asked to.
        is_hung: True if it was ended for a hang.
    """

    status: int
    cause: str
    held: Reading
    count: Count | None
    is_hung: bool

    @property
    def is_spent(self) -> bool:
        """True if it trained the one trial that it was for."""
        return self.status == SPENT and not self.held.ticket


class Supervisor:
    """The supervisor of a trainer, and of the next one if each trial has its own.

    Args:
        pulse: The trainer's pulse.
        parent: The process that started this worker; the trainer stops when it is gone.

    Attributes:
        pid: The process id of the supervisor, in the trainer too.
        must_stop: True once this process was asked to stop.
    """

    def __init__(self, pulse: Pulse, *, parent: int | None) -> None:
        self.pid = os.getpid()
        self._pulse, self._parent = pulse, parent
        # The stacks of a trainer that hangs or crashes go through this file into the log.
        self._stacks: IO[str] = tempfile.TemporaryFile("a+")  # noqa: SIM115
        self._trainer = 0
        self._hung: tuple[Reading, float] | None = None
        self._keeper: int | None = None
        self._is_in_charge = False
        self._earlier: set[psutil.Process] = set()
        self._before = {number: signal.getsignal(number) for number in _STOPS}
        self.must_stop = False

    def fork(self) -> int:
        """Start the trainer; return its process id here, and 0 in the trainer itself."""
        before = self._before
        obeyed = [number for number in _STOPS if before[number] is not signal.SIG_IGN]
        for number in obeyed:
            signal.signal(number, self._pass_on)
        sys.stderr.flush()
        if not self._is_in_charge:
            self._is_in_charge = True
            # A script that starts a tunnel and then executes this program has left us a child.
            self._earlier = children.living()
            # Started later, the keeper would be adopted, and ended with the trainer's processes.
            mark = children.set_mark(is_launched=self._parent is not None)
            self._keeper = children.keep(mark)
            children.adopt_orphans()
        # The one before it, if there was one, left its last phase here.
        self._pulse.begin("")
        self._trainer = os.fork()
        if self._trainer == 0:
            # Until it handles them itself, they end it: it holds no ticket yet.
            for number in obeyed:
                signal.signal(number, before[number])
            # Ctrl-C at a terminal reaches it by `_pass_on` alone.
            os.setpgid(0, 0)
            children.adopt_orphans()
            if self._keeper is not None:
                os.close(self._keeper)
            faulthandler.enable(self._stacks, all_threads=True)
            faulthandler.register(_DUMP_SIGNAL, self._stacks, all_threads=True)
            return 0
        if self._keeper is not None:
            # A keeper that was killed reads nothing.
            with suppress(OSError):
                os.write(self._keeper, f"{self._trainer}\n".encode())
        return self._trainer

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        """Ask the trainer to stop, as this process was asked."""
        self.must_stop = True
        self._pulse.ask_to_stop()
        if self._trainer > 0:
            with suppress(ProcessLookupError):
                os.kill(self._trainer, signal.SIGTERM)

    def wait(self) -> Ending:
        """Wait for the trainer's end; end it when a phase exceeds its limit."""
        kills, idle_s, last = OomKills(), 0.0, self._pulse.read()
        polled_at, orphan_at = time.monotonic(), math.inf
        if self.must_stop:
            self._pass_on(signal.SIGTERM, None)
        while (status := self._status()) is None:
            time.sleep(_POLL_S)
            now = time.monotonic()
            # A long poll means that this process was stopped, and so perhaps the trainer.
            passed_s, polled_at = min(now - polled_at, 10 * _POLL_S), now
            kills.look()
            # What an objective prints reaches the log without a line of ours.
            rotation.look()
            reading = self._pulse.read()
            if reading.beginnings != last.beginnings:
                idle_s, last = 0.0, reading
            elif not is_stopped(self._trainer):
                idle_s += passed_s
            if reading.limit_s and idle_s > reading.limit_s and self._hung is None:
                self._hung = (reading, idle_s)
                self._end_hung(reading, idle_s)
            is_orphan = self._parent is not None and os.getppid() != self._parent
            if is_orphan and orphan_at == math.inf:
                orphan_at = now
                _logger.warning("the process that started this worker is gone; stopping")
                self._pass_on(signal.SIGTERM, None)
            elif now - orphan_at > children.ABANDONED_S:
                # A step that hangs hears of no stop, and no one is left to kill it.
                with suppress(ProcessLookupError):
                    os.kill(self._trainer, signal.SIGKILL)
        # Where orphans cannot be adopted, those in the trainer's group are found all the same.
        with suppress(OSError):
            os.killpg(self._trainer, signal.SIGKILL)
        self._trainer = 0
        ended = children.end(earlier=children.trees(self._earlier))
        if ended:
            _logger.info("ended %d processes that the trainer had started", ended)
        return self._explained(status, is_oom=kills.have_risen())

    def _status(self) -> int | None:
        """The trainer's exit code, or its signal as a negative number; None while it runs."""
        pid, status = os.waitpid(self._trainer, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def _end_hung(self, reading: Reading, idle_s: float) -> None:
        """Have a trainer that hangs write the stacks of its threads, and kill it."""
        _logger.error("no step for %.0f s in %s: ending the trainer", idle_s, reading.phase)
        with suppress(ProcessLookupError):
            os.kill(self._trainer, _DUMP_SIGNAL)
            # A stopped process writes nothing, and one that waits for a disk may not either.
            deadline = time.monotonic() + _DUMP_S
            while time.monotonic() < deadline and not self._dump():
                time.sleep(_POLL_S)
            time.sleep(_POLL_S)
            os.kill(self._trainer, signal.SIGKILL)

    def _dump(self) -> str:
        self._stacks.seek(0)
        return self._stacks.read()

    def _explained(self, status: int, *, is_oom: bool) -> Ending:
        """The end of the trainer, with its cause."""
        # The signal for the stacks may have woken the hang, and the trainer gone on from there.
        reading, hung_s = self._hung or (self._pulse.read(), 0.0)
        dump = self._dump()
        if dump:
            _logger.error("the stacks of its threads:\n%s", dump.rstrip())
        where = f" in {reading.phase}" if reading.phase else ""
        frame = innermost(dump)
        line = f", {frame}" if frame else ""
        count: Count | None = "losses"
        if self._hung is not None:
            cause = f"hung: no step for {hung_s:.0f} s{where}{line}"
        elif -status in CRASHES:
            cause = f"its process crashed ({signal_name(-status)}){where}{line}"
        elif status == -signal.SIGKILL and is_oom:
            cause = f"the kernel killed its process{where}: out of memory"
        elif status < 0:
            count, cause = "silences", f"its worker was killed by {signal_name(-status)}"
        else:
            cause = f"its process ended with code {status}{where}"
            if not reading.phase:
                # Outside of an objective's code the exit is ours: a stop, or a database that
                # stayed away.
                is_foreign = bool(reading.ticket) and status in _FOREIGN_CODES
                lost: Count = "losses" if is_foreign else "silences"
                count = None if self.must_stop else lost
        return Ending(
            status=status, cause=cause, held=reading, count=count, is_hung=self._hung is not None
        )


def finish(ending: Ending, lose: Callable[[], object]) -> int:
    """Give back the ticket of an ended trainer; return the worker's exit code, or die as it did.

    Args:
        lose: Gives back the ticket that this process held, with the end as its cause.
    """
    ticket = ending.held.ticket
    if ticket:
        _logger.error("ticket %d | %s", ticket, ending.cause)
        try:
            lose()
        except Exception as error:
            _logger.warning("ticket %d | others give it back: %s", ticket, error)
    if ticket and ending.count == "losses":
        return LOST
    if ending.is_hung:
        return RunFailed.exit_code
    if ending.status >= 0:
        return ending.status
    if -ending.status not in CRASHES:
        # Whoever started this worker is to see that the signal came from outside.
        with suppress(OSError):
            signal.signal(-ending.status, signal.SIG_DFL)
        os.kill(os.getpid(), -ending.status)
    return 128 - ending.status


def watch_parent(parent: int, stop: threading.Event, pulse: Pulse) -> None:
    """Set `stop` when the supervisor has ended; end this process if it does not stop by then."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_S)
        _logger.warning("the supervisor of this worker is gone; stopping")
        pulse.ask_to_stop()
        stop.set()
        time.sleep(_ORPHAN_S)
        # A step that hangs hears of no stop, and its supervisor can no longer end it.
        children.end()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
