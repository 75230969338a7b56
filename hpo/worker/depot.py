"""Copies of this worker's checkpoints in a place that other hosts reach, made by a thread.

The engine writes and reads local files. The thread copies the newest one outwards, now and then and
when the trial is given back, and brings one in before a trial goes on here. A step waits for none
of it, and no outage of the place ends a trial. Border: when; `transfer` does one of them.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Container
from contextlib import suppress
from functools import partial
from pathlib import Path

from hpo.database.checkpoints import Refused
from hpo.database.faults import reason
from hpo.engine import checkpoint_files
from hpo.errors import LeaseLost, StopRequested
from hpo.tickets.ticket import Ticket
from hpo.worker.depot_log import DepotLog
from hpo.worker.transfer import Gone, Owner, Store, Unwritable, bring, send

# A copy takes at most a fifth of the time, so that a slow network is left to others.
_SHARE = 5.0
_RETRY_S = 10.0
# Of the grace so much is for the last copy; the step before it and the exit need some, too.
_GRACE_SHARE = 0.7
_AWAY_S = 5.0
# The best trial's last checkpoint, of some GB perhaps, is waited for at the end of a study.
_FINISH_S = 120.0
_POLL_S = 0.1
# Trying again helps against none of these.
_LASTING = (PermissionError, ImportError, Unwritable)


class Depot:
    """The copies of one worker's checkpoints.

    Args:
        folder: The local folder, which the engine writes to.
        grace_s: The time that a worker has to stop.
    """

    def __init__(self, store: Store, folder: Path, *, grace_s: float) -> None:
        self._store, self._folder = store, folder
        self._wait_s = _GRACE_SHARE * grace_s
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._owner: Owner | None = None
        self._pending: int | None = None
        self._copied: int | None = None
        # The first checkpoint of a process goes out at once.
        self._due_at = -math.inf
        self._waited_s = 0.0
        self._is_busy = self._is_hasty = self._is_closed = False
        self._log = DepotLog(store)
        self._thread = threading.Thread(target=self._run, name="depot", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        return str(self._store)

    def begin(
        self, ticket: Ticket, number: int, *, steps: int, on_copied: Callable[[int], None]
    ) -> None:
        """Copy the checkpoints of this attempt from now on."""
        path = checkpoint_files.file_of(self._folder, number, ticket.attempt)
        with self._changed:
            self._owner = Owner(
                ticket=ticket, number=number, path=path, steps=steps, on_copied=on_copied
            )
            self._pending = self._copied = None

    def bring(self, stop: threading.Event) -> str | None:
        """Bring in the newest whole copy of earlier attempts, if no file here is as new.

        Returns:
            Why there is no file to go on from; None if there is one.

        Raises:
            StopRequested: `stop` was set meanwhile, for which the trial must not start over.
        """
        owner = self._owner
        assert owner is not None
        answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._do(lambda: answers.put(self._brought(owner, stop)))
        # A file system may hang, and not only fail.
        deadline = time.monotonic() + 2 * self._store.patience_s
        while time.monotonic() < deadline:
            with suppress(queue.Empty):
                lacking = answers.get(timeout=_POLL_S)
                if lacking is None or not stop.is_set():
                    return lacking
            if stop.is_set():
                raise StopRequested("stopped before its checkpoint was here")
        return f"{self._store} does not answer"

    def _brought(self, owner: Owner, stop: threading.Event) -> str | None:
        began = time.monotonic()
        while True:
            try:
                found = bring(self._store, owner)
                break
            except Exception as error:
                left_s = began + self._store.patience_s - time.monotonic()
                # A store with infinite patience has waited itself.
                is_lasting = isinstance(error, _LASTING) or not 0 < left_s < math.inf
                if is_lasting or stop.wait(_RETRY_S):
                    return f"no copy can be had of {self._store}: {reason(error)}"
                self._log.away(error)
        self._log.found(owner, found, seconds=time.monotonic() - began)
        return None if found.is_whole else f"{self._store} has no whole copy of one"

    def note(self, step: int) -> None:
        """Note that the local file holds this step; return at once."""
        with self._changed:
            if self._owner is not None and step < self._owner.steps:
                self._pending = step
                self._changed.notify_all()

    def release(self, ticket: Ticket) -> int | None:
        """Copy the newest file at once, before the trial is given back, and wait for it.

        Args:
            ticket: The trial's, which may have no checkpoint yet.

        Returns:
            The step from which another host can go on; None for none of this attempt.
        """
        with self._changed:
            if self._owner is None or self._owner.ticket.run_uid != ticket.run_uid:
                self._owner = self._pending = None
                return None
            owner, newest, self._is_hasty = self._owner, self._pending, True
            self._changed.notify_all()
            # A store that was away a moment ago gets one short try.
            wait_s = min(_AWAY_S, self._wait_s) if self._log.is_away else self._wait_s
            began = time.monotonic()
            is_done = self._changed.wait_for(self._is_idle, wait_s)
            self._waited_s = time.monotonic() - began
            copied, self._owner, self._pending = self._copied, None, None
            self._is_hasty = False
        if newest is not None and not is_done:
            self._log.left_behind(owner, wait_s)
        return copied

    def _is_idle(self) -> bool:
        return self._pending is None and not self._is_busy and not self._jobs

    def end(self, number: int, attempt: int, *, is_best: bool, before: int | None) -> None:
        """Keep the last checkpoint of a trial that has ended as the best, or none of it.

        Args:
            attempt: The attempt that ended it, which may have trained nothing.
            before: The best trial so far, whose copy goes then.
        """
        with self._changed:
            owner, has_copies = self._owner, self._copied is not None or self._is_busy
            self._owner = self._pending = None
        # An attempt that lost its lease has left what another worker goes on with.
        is_own = owner is not None and (owner.number, owner.ticket.attempt) == (number, attempt)
        if owner is not None and is_own and is_best:
            self._do(partial(self._copy, owner, owner.steps))
            if before is not None:
                self.discard(before)
        elif (is_own and has_copies) or attempt > 1:
            self.discard(number)

    def discard(self, number: int) -> None:
        """Delete the copies of a trial."""
        self._do(partial(self._store.discard, number))

    def sweep(self, ended: Container[int], *, keep: tuple[int, int] | None) -> None:
        """Delete the copies of ended trials, except that of one trial's attempt."""
        self._do(partial(self._store.sweep, ended, keep=keep))

    def _do(self, job: Callable[[], None]) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def close(self, stop: threading.Event) -> None:
        """Finish what is to be done, within the grace once `stop` is set."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        began = time.monotonic()
        while self._thread.is_alive():
            # A release has waited within the same grace.
            left_s = self._wait_s - self._waited_s if stop.is_set() else _FINISH_S
            if time.monotonic() - began > left_s:
                self._log.unfinished()
                return
            self._thread.join(_POLL_S)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception as error:
                self._log.away(error)
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        """The next thing to do, waited for; None at the end."""
        with self._changed:
            while not self._jobs:
                left_s = 0.0 if self._is_hasty else self._due_at - time.monotonic()
                if self._owner is not None and self._pending is not None and left_s <= 0:
                    self._jobs.append(partial(self._copy, self._owner, self._pending))
                    self._pending = None
                elif self._is_closed:
                    return None
                else:
                    self._changed.wait(None if self._pending is None else left_s)
            self._is_busy = True
            return self._jobs.popleft()

    def _copy(self, owner: Owner, step: int) -> None:
        """Copy the local file of an attempt, which holds this step or a later one."""
        began, is_stored = time.monotonic(), False
        try:
            send(self._store, owner, step)
            is_stored = True
            self._log.back()
        except (Gone, LeaseLost):
            # The trial has ended, here or elsewhere.
            return
        except Refused as refusal:
            self._log.refused(str(refusal))
        except Exception as error:
            self._log.away(error)
            self._try_again(owner, step)
            return
        now = time.monotonic()
        with self._changed:
            self._due_at = now + max(self._store.every_s, _SHARE * (now - began))
            if owner is self._owner:
                self._copied = step if is_stored else self._copied
                # Where no copy is taken, this host alone can go on, and that counts.
                owner.on_copied(step)

    def _try_again(self, owner: Owner, step: int) -> None:
        with self._changed:
            self._due_at = time.monotonic() + _RETRY_S
            # Who is giving the trial back does not wait for a store that is away.
            if owner is self._owner and self._pending is None and not self._is_hasty:
                self._pending = step
