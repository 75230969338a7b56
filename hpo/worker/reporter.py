"""The worker's Reporter: forwards epochs to lease, database, pruner and log.

Border: receives the reports of one trial; `attempt` ends the trial. A report never waits for the
database: during an outage the trial trains on, and a later report brings all of them, also in the
next attempt, because the checkpoint has them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from hpo.engine.reports import Epoch, Interval, Reporter, Sample
from hpo.search.column_pruners import reads_running
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
        lacking: Why a trial that was interrupted has no checkpoint; None for a new one.
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
        self._kept: list[dict[str, Any]] = []
        self._reads_running = reads_running(trial.study.pruner)
        self.skipped = 0
        self.lacking: str | None = None

    def must_stop(self) -> bool:
        beat = self._beat
        is_over = beat.is_lost or beat.is_over or self._context.stop.is_set()
        is_over = is_over or beat.gives_back or beat.cancelled == self._trial.number
        if not is_over and self._opened.storage.is_due:
            # The next report may be an hour away. A decision, too, notes what other trials' need.
            started_s = time.process_time()
            self._write(is_due=False)
            self._context.training_cpu_s -= time.process_time() - started_s
        return is_over

    def on_phase(self, phase: str) -> None:
        self._context.pulse.begin(phase)

    def on_saved(self, step: int) -> None:
        if self._context.depot is None:
            self.on_copied(step)
        else:
            self._context.depot.note(step)

    def on_copied(self, step: int) -> None:
        """Note the step that an interruption would go back to."""
        self._beat.note(saved_step=step)

    def on_epoch(self, epoch: Epoch) -> bool:
        started_s = time.process_time()
        value = epoch.metrics[self._opened.config.metric]
        self.skipped = epoch.skipped
        # A lease's value goes into JSON, which has no NaN.
        shown = value if math.isfinite(value) else None
        self._beat.note(epoch=epoch.epoch, step=epoch.step, value=shown)
        if epoch.epoch:
            _logger.info("%s | %s", self._log, epoch.line())
        else:
            self._note_start(value)
        # Epoch 0 is noted, and after the last one the trial ends in any case.
        is_decided = 0 < epoch.epoch < epoch.epochs
        is_written = self._keep(
            epoch.samples,
            epoch=epoch.epoch,
            step=epoch.step,
            value=value,
            figures=epoch.flat(),
            is_due=is_decided and self._reads_running,
        )
        is_pruned = False
        if is_decided and is_written:
            if self._reads_running:
                self._opened.storage.at_once(self._refresh, None)
            is_pruned = self._opened.storage.at_once(self._trial.should_prune, False)
        # The time for reports is not training time.
        self._context.training_cpu_s -= time.process_time() - started_s
        return is_pruned

    def _note_start(self, value: float) -> None:
        """Log what is worth a line of an attempt that begins before the first step."""
        if self.lacking is not None:
            _logger.warning("%s | it starts over: %s", self._log, self.lacking)
        if not math.isfinite(value):
            _logger.warning("%s | before the first step the metric is %s", self._log, value)

    def _refresh(self) -> None:
        # Of trials that run, a pruner in columns asks for their rungs alone.
        self._opened.storage.refresh_history(self._opened.study_id, running=False, rungs=True)

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
        self._keep(samples, epoch=epoch, step=step, is_due=False)
        self._context.training_cpu_s -= time.process_time() - started_s

    def state_dict(self) -> dict[str, Any]:
        """What an outage kept from being written: the next attempt does not train it again."""
        return {"kept": self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # The engine restores this among the task's own states, whose errors are the trial's.
        with self._context.pulse.outside():
            for report in state.get("kept", ()):
                self._kept.append(report)
                self._hand_over(report)

    def _keep(
        self,
        samples: Sequence[Sample],
        *,
        epoch: int,
        step: int,
        value: float | None = None,
        figures: Mapping[str, float] | None = None,
        is_due: bool,
    ) -> bool:
        """Write a report with those kept before; during an outage keep it, and return False.

        Reports that follow each other within half a second are written together.

        Args:
            is_due: Write it at once, as a decision depends on it.
            value: The metric of an epoch; None between two epochs.
            figures: All figures of an epoch.
        """
        self._log_samples(samples, step)
        report = {
            "run_uid": self._ticket.run_uid,
            "epoch": epoch,
            "step": step,
            "value": value,
            "figures": None if figures is None else dict(figures),
            "samples": [vars(sample) for sample in samples],
        }
        self._kept.append(report)
        self._hand_over(report)
        return self._write(is_due=is_due)

    def _write(self, *, is_due: bool) -> bool:
        """Write what is kept, if its time has come; during an outage return False."""
        storage, trial_id = self._opened.storage, self._trial._trial_id
        # The beat knows of an outage before a report has to try.
        if self._beat.is_away:
            return False
        if not is_due and not storage.is_due:
            return True
        if not storage.flush_at_once(trial_id):
            return False
        self._kept.clear()
        return True

    def _hand_over(self, report: Mapping[str, Any]) -> None:
        """Have the storage write a report with its next transaction."""
        storage, records = self._opened.storage, self._context.records
        where = {name: report[name] for name in ("run_uid", "epoch", "step")}
        figures, value = report["figures"], report["value"]
        if figures is not None:
            ticket = self._ticket.ticket
            storage.add_metrics(records.epoch(ticket=ticket, values=figures, **where))
        storage.alongside(
            *records.predicted(report["samples"], trial_number=self._trial.number, **where)
        )
        if report["epoch"] == 0 and value is not None:
            # The sampler uses this metric as the value of a trial that diverges. A system attribute
            # keeps it out of the displays.
            if math.isfinite(value):
                storage.set_trial_system_attr(self._trial._trial_id, UNTRAINED, value)
        elif value is not None:
            self._trial.report(value, report["epoch"])

    def _log_samples(self, samples: Sequence[Sample], step: int) -> None:
        """Log the number of predictions and their errors."""
        failed = [sample for sample in samples if sample.error is not None]
        if failed:
            text = "%s | step %d: %d predictions saved, %s, the first in sample %d: %s"
            count = f"{len(failed)} error{'s' if len(failed) > 1 else ''}"
            first = (failed[0].sample, failed[0].error)
            _logger.warning(text, self._log, step, len(samples) - len(failed), count, *first)
        elif samples:
            _logger.info("%s | step %d: %d predictions saved", self._log, step, len(samples))
