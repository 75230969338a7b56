"""A simulated worker: a worker's statements, with sleep in place of training.

It takes tickets, beats, and begins, reports and ends trials by the service's own code, in the order
of `hpo.worker`. It leaves out what is no work for the database: torch and the engine, the
supervisor's process, process state, checkpoint files, predictions, references, logs, and a check
of the objective at each ticket. This is the one module that has to follow `hpo.worker`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from hpo.database import records
from hpo.database.connection import connect
from hpo.database.history_reader import best_number
from hpo.database.outside import trial_state
from hpo.search.samplers import UNTRAINED
from hpo.study import study
from hpo.study.outcomes import ATTEMPT, ENQUEUED
from hpo.tickets.budget import Tickets
from hpo.tickets.ticket import Ticket
from hpo.worker.heartbeat import Beat
from hpo.worker.idle import Idle
from hpo.worker.pulse import Pulse
from peers.space import EPOCHS, SPACE, badness

_LOOK_S = 5.0
_FIGURES = {"loss": 1.0, "scale": 1.0, "skipped": 0, "spikes": 0, "grad_norm.w": 1.0}


@dataclass(kw_only=True)
class Timed:
    """Times of a worker's calls, in ms, by their names; kept within a window alone.

    Attributes:
        window: Begin and end of the window, by the monotonic clock; infinite until it is decided,
            which may be in another process.
    """

    window: Sequence[float]
    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Time a call of this thread."""
        begun, begun_cpu = time.perf_counter(), time.thread_time()
        yield
        if self.window[0] <= time.monotonic() <= self.window[1]:
            self.note(name, time.perf_counter() - begun, time.thread_time() - begun_cpu)

    def note(self, name: str, wall_s: float, cpu_s: float = 0.0) -> None:
        self.wall.setdefault(name, []).append(1000 * wall_s)
        self.cpu.setdefault(name, []).append(1000 * cpu_s)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.window[1]

    def sleep_until(self, at: float) -> None:
        """Sleep until a time of the monotonic clock, or the window's end."""
        while (left_s := min(at, self.window[1]) - time.monotonic()) > 0:
            # The end may be decided meanwhile.
            time.sleep(min(left_s, _LOOK_S))


class _Over(threading.Event):
    """The event that ends a worker's waiting: the window is over."""

    def __init__(self, timed: Timed) -> None:
        super().__init__()
        self._timed = timed

    def is_set(self) -> bool:
        return self._timed.is_over

    def wait(self, timeout: float | None = None) -> bool:
        self._timed.sleep_until(time.monotonic() + (timeout or 0.0))
        return self._timed.is_over


class Worker:
    """A simulated worker of a study.

    Args:
        epoch_s: Time of an epoch.
    """

    def __init__(self, url: str, name: str, slot: str, *, epoch_s: float, timed: Timed) -> None:
        self._db = connect(url, application=slot, needs_writes=True, connections=2, kept=2)
        self._opened = study.claimed(study.open_study(self._db, name))
        self._tickets = Tickets(self._db, self._opened.uid)
        self._records = records.Records(self._db, self._opened.uid)
        self._slot, self._epoch_s, self._timed = slot, epoch_s, timed
        self._wanted_at = time.monotonic()

    def run(self) -> None:
        """Take tickets until the window is over."""
        with Idle(self._tickets, _Over(self._timed)) as idle:
            while not self._timed.is_over:
                with self._timed.call("take"):
                    idle.sweep()
                    ticket = self._take()
                if ticket is None:
                    idle.wait()
                    continue
                idle.end()
                with Beat(self._tickets, ticket, Pulse()) as beat:
                    self._train(ticket, beat)
                    # The next ticket is wanted once the trial has ended, before the beats have.
                    self._wanted_at = time.monotonic()

    def hold(self) -> None:
        """Hold one ticket with beats until the window is over, so that the study is not done."""
        ticket = self._take()
        assert ticket is not None
        with Beat(self._tickets, ticket, Pulse()):
            self._timed.sleep_until(self._timed.window[1])

    def _take(self) -> Ticket | None:
        ticket = self._tickets.take(worker=self._slot, slot=self._slot)
        if ticket is not None and self._timed.window[0] <= self._wanted_at:
            self._timed.note("wait", time.monotonic() - self._wanted_at)
        return ticket

    def _train(self, ticket: Ticket, beat: Beat) -> None:
        """Begin a trial, report its epochs, end it; leave it where it is at the window's end."""
        with self._timed.call("begin"):
            opened = study.refreshed(self._opened)
            opened.storage.hold(ticket, (opened.name, opened.study_id))
            trial, loaded = self._begin(opened, ticket, beat)
        value, next_at = 0.0, time.monotonic()
        for epoch in range(EPOCHS + 1):
            if epoch:
                next_at += self._epoch_s
                self._timed.sleep_until(next_at)
                if self._timed.is_over:
                    return
            value = 3.0 * 0.9**epoch + (badness(trial.params) if epoch == EPOCHS else 0.0)
            with self._timed.call("report" if epoch else "report of epoch 0"):
                self._report(opened, ticket, beat, trial, epoch=epoch, value=value)
        with self._timed.call("end"):
            self._end(opened, ticket, trial, loaded, value)

    def _begin(
        self, opened: study.OpenStudy, ticket: Ticket, beat: Beat
    ) -> tuple[optuna.Trial, optuna.Study]:
        """Create the trial and ask for its parameters, as `creation.begin` and `Attempt` do."""
        storage = opened.storage
        loaded = opened.load(sampler_seed=study.derive_seed(opened.config.seed, ticket.ticket))
        trial_id = storage.create_trial(
            opened.study_id,
            user_attrs={"prune_reason": "-"},
            system_attrs={},
            if_waiting={ENQUEUED: True},
        )
        storage.refresh_history(opened.study_id)
        trial = optuna.Trial(loaded, trial_id)
        beat.watch(trial_state(trial_id))
        for name, spec in SPACE.items():
            spec.suggest(trial, name)
        self._write_attributes(trial, ticket)
        storage.set_trial_system_attr(trial_id, ATTEMPT, 0)
        storage.flush(trial_id)
        beat.note(epoch=0, epochs=EPOCHS, step=0, steps=EPOCHS)
        return trial, loaded

    def _report(
        self,
        opened: study.OpenStudy,
        ticket: Ticket,
        beat: Beat,
        trial: optuna.Trial,
        *,
        epoch: int,
        value: float,
    ) -> None:
        """Report an epoch, as `TrialReporter.on_epoch` does."""
        storage = opened.storage
        beat.note(epoch=epoch, step=epoch, value=value)
        figures = {**_FIGURES, "distance": value}
        storage.add_metrics(
            self._records.epoch(
                run_uid=ticket.run_uid,
                ticket=ticket.ticket,
                epoch=epoch,
                step=epoch,
                values=figures,
            )
        )
        if epoch == 0:
            storage.set_trial_system_attr(trial._trial_id, UNTRAINED, value)
        else:
            trial.report(value, epoch)
        is_written = not storage.is_due or storage.flush_at_once(trial._trial_id)
        if is_written and 0 < epoch < EPOCHS:
            storage.at_once(trial.should_prune, False)

    def _end(
        self,
        opened: study.OpenStudy,
        ticket: Ticket,
        trial: optuna.Trial,
        loaded: optuna.Study,
        value: float,
    ) -> None:
        """End the trial, as `Attempt._end` does; the answer of the pruner is not obeyed."""
        storage = opened.storage
        self._write_attributes(trial, ticket)
        storage.set_trial_system_attr(trial._trial_id, ATTEMPT, ticket.attempt)
        trial.set_constraint("nonfinite", 0.0)
        loaded.tell(trial, value, state=TrialState.COMPLETE)
        # What decides on the trial's checkpoint.
        best_number(storage.history(opened.study_id), maximize=False, but=trial.number)
        storage.hold(None)

    def _write_attributes(self, trial: optuna.Trial, ticket: Ticket) -> None:
        names = ("prune_reason", "prune_detail", "precision", "worker", "git_sha")
        numbers = ("seconds", "gpu_seconds", "skipped_steps", "seed")
        values: dict[str, Any] = {**dict.fromkeys(names, self._slot), **dict.fromkeys(numbers, 0)}
        for name, value in {**values, "run_uid": ticket.run_uid}.items():
            trial.set_user_attr(name, value)
