"""The worker's Reporter: forwards epochs to lease, database, pruner and log.

Border: receives the reports of one trial; `attempt` ends the trial. A report never waits for the
database: during an outage the trial trains on, and a later report brings all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import optuna

from hpo.engine.reports import Epoch, Interval, Reporter, Sample
from hpo.search.samplers import UNTRAINED
from hpo.study.study import OpenStudy
from hpo.tickets.ticket import Ticket
from hpo.worker.context import WorkerContext
from hpo.worker.heartbeat import Beat

_logger = logging.getLogger(__name__)


class TrialReporter(Reporter):
    """The Reporter of one trial in a worker.

    Attributes:
        skipped: Steps withheld from the weights so far.
    """

    def __init__(
        self,
        context: WorkerContext,
        ticket: Ticket,
        beat: Beat,
        trial: optuna.Trial,
        opened: OpenStudy,
    ) -> None:
        self._context, self._ticket, self._beat = context, ticket, beat
        self._trial, self._opened = trial, opened
        self._log = f"ticket {ticket.ticket} | trial {trial.number}"
        self.skipped = 0

    def must_stop(self) -> bool:
        return self._beat.is_lost or self._beat.is_over or self._context.stop.is_set()

    def on_phase(self, phase: str) -> None:
        self._context.pulse.begin(phase)

    def on_saved(self, step: int) -> None:
        self._beat.note(saved_step=step)

    def on_epoch(self, epoch: Epoch) -> bool:
        started_s = time.process_time()
        value = epoch.metrics[self._opened.config.metric]
        self.skipped = epoch.skipped
        self._beat.note(epoch=epoch.epoch, step=epoch.step, value=value)
        storage, records, trial_id = (
            self._opened.storage,
            self._context.records,
            self._trial._trial_id,
        )
        figures = records.epoch(
            run_uid=self._ticket.run_uid,
            ticket=self._ticket.ticket,
            epoch=epoch.epoch,
            step=epoch.step,
            values=epoch.flat(),
        )
        storage.alongside(*figures)
        self._keep(epoch.samples, epoch=epoch.epoch, step=epoch.step)
        is_pruned = False
        if epoch.epoch == 0:
            # The sampler uses this metric as the value of a trial that diverges. A system attribute
            # keeps it out of the displays.
            storage.set_trial_system_attr(trial_id, UNTRAINED, value)
        else:
            _logger.info("%s | %s", self._log, epoch.line())
            self._trial.report(value, epoch.epoch)
        if self._flush() and 0 < epoch.epoch < epoch.epochs:
            is_pruned = storage.at_once(self._trial.should_prune, False)
        # The time for reports is not training time.
        self._context.training_cpu_s -= time.process_time() - started_s
        return is_pruned

    def on_interval(self, interval: Interval) -> None:
        _logger.info("%s | %s", self._log, interval.line())
        for group in interval.unmoved:
            _logger.warning(
                "%s | the gradient of '%s' has been zero for 20 steps: nothing trains it",
                self._log,
                group,
            )

    def on_predictions(self, samples: Sequence[Sample], *, epoch: int, step: int) -> None:
        started_s = time.process_time()
        self._keep(samples, epoch=epoch, step=step)
        self._flush()
        self._context.training_cpu_s -= time.process_time() - started_s

    def _flush(self) -> bool:
        """Write what was reported; during an outage keep it for the next report, return False."""
        # The beat knows of an outage before a report has to try.
        return not self._beat.is_away and self._opened.storage.flush_at_once(self._trial._trial_id)

    def _keep(self, samples: Sequence[Sample], *, epoch: int, step: int) -> None:
        """Store predictions with the next flush; log their number and errors."""
        failed = [sample for sample in samples if sample.error is not None]
        if failed:
            text = "%s | step %d: %d predictions saved, %s, the first in sample %d: %s"
            count = f"{len(failed)} error{'s' if len(failed) > 1 else ''}"
            first = (failed[0].sample, failed[0].error)
            _logger.warning(text, self._log, step, len(samples) - len(failed), count, *first)
        elif samples:
            _logger.info("%s | step %d: %d predictions saved", self._log, step, len(samples))
        statement, rows = self._context.records.predicted(
            [vars(sample) for sample in samples],
            run_uid=self._ticket.run_uid,
            trial_number=self._trial.number,
            epoch=epoch,
            step=step,
        )
        self._opened.storage.alongside(statement, rows)
