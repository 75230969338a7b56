"""Keep a worker on each slot: start, restart and stop processes, give lost tickets back.

Border: emits events; prints nothing and reads neither argv nor environ. It reaches a worker through
its command line alone. `run` makes the result.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from hpo.database.patience import end_with, give_up_at, set_patience
from hpo.errors import RunFailed
from hpo.fleet.config import FleetConfig
from hpo.fleet.events import (
    Event,
    Finishing,
    Grown,
    Progress,
    Stopping,
    WorkerEnded,
    WorkerLeft,
)
from hpo.fleet.hours import Hours
from hpo.fleet.orders import Orders
from hpo.fleet.seats import Seat
from hpo.fleet.tally import MOST_FAILURES
from hpo.fleet.watch import Watch
from hpo.launch.launcher import Launcher
from hpo.launch.supervisor import Process, Supervisor
from hpo.study import study
from hpo.study.join import Prepared
from hpo.tickets.budget import Budget

_POLL_S = 0.2
_PROGRESS_S = 0.5
# A report reads the leases of all workers. It takes this share of the run's time, if it can. After
# an outage, which it waits out, the next one follows within the longest pause.
_SHARE, _LONGEST_S = 0.1, 2.0
# Trials that another program enqueues are noticed within this time.
_LOOK_S = 2.0
# A worker without work ends within a second. The user gets a reason for a longer wait.
_FINISHING_S = 2.0


class Fleet:
    """The workers of one run.

    Args:
        started_at: The start of the run by the monotonic clock; None for now.
    """

    def __init__(
        self,
        prepared: Prepared,
        config: FleetConfig,
        launcher: Launcher,
        emit: Callable[[Event], None],
        *,
        started_at: float | None = None,
    ) -> None:
        self._prepared, self._config = prepared, config
        self._supervisor, self._emit = Supervisor(launcher), emit
        self._seats = {slot.name: Seat(slot=slot) for slot in config.slots}
        self._started_at = time.monotonic() if started_at is None else started_at
        self._study = prepared.opened.load()
        self._watch = Watch(prepared.opened, slots=len(config.slots))
        self._seen_ended = -1
        self._finishing_since: float | None = None
        self._has_announced = False
        self._hours = Hours(prepared.tickets, emit)
        self._looked_at = 0.0
        self._orders = Orders(prepared, self._seats, is_local=config.is_local)

    def adopt(self, first: Process) -> None:
        """Take over a worker that runs already, on one of the slots; `work` ends it."""
        self._supervisor.adopt(first)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started_at

    def work(self, stop: threading.Event) -> bool:
        """Keep a worker on each slot until the budget is spent; return True if stopped before."""
        tickets, timeout_s = self._prepared.tickets, self._config.timeout_s
        notices = tickets.notices()
        set_patience(self._config.patience_s)
        give_up_at(None if timeout_s is None else self._started_at + timeout_s)
        end_with(stop)
        next_progress_at, is_done = 0.0, False
        try:
            tickets.sweep()
            while True:
                if not is_done and time.monotonic() >= next_progress_at:
                    notices.listen()
                    began_at = time.monotonic()
                    spent = self._report()
                    next_progress_at = _next_after(began_at)
                    is_done = spent.ended == spent.total and not self._grow()
                    self._note_deaths(is_done=is_done)
                    if self._hours.is_over and not is_done:
                        if self._hours.has_ended(spent):
                            return False
                    elif not is_done:
                        if self._orders.all_drained() and not self._supervisor.running:
                            self._emit(Stopping(reason="all of its workers were drained"))
                            return True
                        self._tend_workers(spent)
                        if time.monotonic() - self._looked_at > _LOOK_S:
                            self._grow()
                if is_done and not self._is_finishing():
                    return False
                if timeout_s is not None and self.seconds >= timeout_s:
                    self._emit(Stopping(reason=f"{timeout_s:g} s are over"))
                    return not is_done
                if notices.wait(_POLL_S, stop):
                    next_progress_at = 0.0
                if stop.is_set():
                    self._emit(Stopping(reason="interrupted"))
                    return not is_done
        except KeyboardInterrupt:
            give_up_at(time.monotonic())
            raise
        finally:
            notices.close()
            if stop.is_set():
                # What follows tries once, as the event is soon cleared.
                give_up_at(time.monotonic())
            end_with(None)
            stop.clear()
            grace_s = self._config.grace_s
            self._supervisor.end(stop, grace_s=grace_s, note=lambda _: None)
            # A worker that the fleet killed is no loss.
            tickets.sweep(is_loss=False)

    def _grow(self) -> int:
        """Add tickets for the trials that other programs enqueued; return their number."""
        added = self._prepared.tickets.queue.make_room(self._prepared.opened.waiting())
        self._looked_at = time.monotonic()
        if added:
            self._emit(Grown(added=added, total=self._prepared.tickets.count().total))
        return added

    def _is_finishing(self) -> bool:
        """Return whether to wait for a worker that may still compute the objective's references."""
        self._supervisor.withdraw(most=0)
        if self._supervisor.is_idle:
            return False
        try:
            if study.REFERENCES in self._study.user_attrs:
                return False
        except KeyError:
            self._follow()
        if self._finishing_since is None:
            self._finishing_since = time.monotonic()
        elif time.monotonic() - self._finishing_since > _FINISHING_S and not self._has_announced:
            self._has_announced = True
            self._emit(Finishing())
        return True

    def _report(self) -> Budget:
        spent = self._prepared.tickets.count()
        if spent.total == 0:
            self._follow()
        ended: Sequence[FrozenTrial] = ()
        if spent.ended != self._seen_ended:
            try:
                ended = self._watch.look(self._prepared.opened)
                self._seen_ended = spent.ended
            except KeyError:
                self._follow()
            self._note_trained(ended)
        leases, tally = self._prepared.tickets.live(), self._watch.tally
        self._orders.look(self._prepared.opened.name)
        self._emit(
            Progress(
                budget=spent,
                leases=leases,
                best=self._watch.best,
                reasons=tally.reasons,
                hopeless={str(one): one.sentence() for one in tally.hopeless},
                ended=ended,
                workers=len(self._supervisor.running),
                waiting=len(self._supervisor.waiting),
                seconds=self.seconds,
                left_s=tally.left_s(spent, leases),
                trial_s=tally.trial_s(leases),
                spent=self._hours.read(spent),
                paused=self._orders.pause,
            )
        )
        failed = tally.failures
        if len(failed) >= MOST_FAILURES and spent.ended < spent.total:
            raise RunFailed(
                f"{len(failed)} trials in a row failed, the last (trial {failed[-1].number}) with: "
                f"{failed[-1].user_attrs.get('prune_detail', '-')}; the traceback is in its "
                f"attribute 'traceback' and in '{self._config.logs}'; mend the objective, and the "
                "same command goes on"
            )
        return spent

    def _follow(self) -> None:
        """Go on with a study that was renamed; raise `RunFailed` if it was deleted."""
        opened = study.refreshed(self._prepared.opened)
        self._prepared = replace(self._prepared, opened=opened)
        self._study = opened.load()

    def _note_trained(self, ended: Sequence[FrozenTrial]) -> None:
        """Count trials that were trained to their end for the seats that trained them."""
        for trial in ended:
            host, _, name = str(trial.user_attrs.get("worker", "")).rpartition("/")
            is_trained = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            # Elsewhere an engine has chosen the host, and the slots have its name.
            is_here = host == platform.node() or not self._config.is_local
            if is_trained and is_here and name in self._seats:
                self._seats[name].note_trained()

    def _tend_workers(self, spent: Budget) -> None:
        """Start a worker on each empty slot while there is work, and no pause."""
        if self._orders.pause is not None:
            return
        supervisor = self._supervisor
        left, now = spent.open + spent.leased, time.monotonic()
        supervisor.withdraw(most=left)
        for name, seat in self._seats.items():
            # More workers than trials would only wait.
            is_free = name not in supervisor.running and len(supervisor.running) < left
            if is_free and seat.is_open and now >= seat.starts_at:
                supervisor.start(
                    name,
                    seat.slot,
                    self._config.argv(seat.slot, self._prepared),
                    log=self._config.log_of(seat.slot),
                    # The URL holds the password, and an argv can be read by every user of the host.
                    environment={"HPO_STORAGE": self._prepared.url},
                )

    def _note_deaths(self, *, is_done: bool) -> None:
        """Report the workers that ended, also where others have ended their trials meanwhile."""
        for process, code in self._supervisor.take().ended:
            self._prepared.tickets.sweep()
            if not is_done and self._orders.has_drained(process):
                self._emit(WorkerLeft(slot=process.slot.name))
            self._note_death(process, code, is_done=is_done)

    def _note_death(self, process: Process, code: int, *, is_done: bool) -> None:
        if code == 0:
            return
        before = self._prepared.opened
        self._follow()
        if self._prepared.opened.study_id != before.study_id:
            # It looked for the study by its former name or id.
            return
        name, reason = process.slot.name, process.last_line()
        seat = self._seats[name]
        seat.note_end(code, lived_s=process.lived_s)
        self._emit(
            WorkerEnded(
                slot=name, code=code, log=process.log, reason=reason, is_retired=seat.is_retired
            )
        )
        if not is_done and all(one.is_retired for one in self._seats.values()):
            raise RunFailed(
                f"worker {name} ended with code {code}, as those before it, and no slot is left; "
                f"its log '{process.log}' ends: {reason or '(empty)'}"
            )


def _next_after(began_at: float) -> float:
    """The time of the next report, after one that began at this time of the monotonic clock."""
    now = time.monotonic()
    return now + min(max(_PROGRESS_S, (now - began_at) / _SHARE), _LONGEST_S)
