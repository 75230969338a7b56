"""What a worker does with what the engine tells: the lease, the records, Optuna's report, a log.

Border: hears of one trial's training; what becomes of the trial is the attempt's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.records import Records
from hpo.engine.recording import Recording
from hpo.engine.reports import (
    Epoch,
    Interval,
    Reporter,
    Sample,
)
from hpo.errors import LeaseLost
from hpo.search.samplers import UNTRAINED
from hpo.study.study import OpenStudy
from hpo.tickets.ticket import Ticket
from hpo.worker.heartbeat import Beat
from objectives import Objective

_logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Bench:
    """What the attempts of one worker work with.

    Attributes:
        name: The worker's, as trials show it.
        recording: Which predictions are kept.
        training_cpu_s: CPU seconds of this process in training and validation so far.
    """

    name: str
    checkpoints: Path
    device: torch.device
    objective: Objective
    opened: OpenStudy
    records: Records
    artifacts: DatabaseArtifacts
    git_sha: str
    stop: threading.Event
    recording: Recording
    training_cpu_s: float = 0.0


class Told(Reporter):
    """The engine's reporter in a worker.

    Attributes:
        skipped: Steps withheld from the weights so far.
    """

    def __init__(
        self, bench: Bench, ticket: Ticket, beat: Beat, trial: optuna.Trial, opened: OpenStudy
    ) -> None:
        self._bench, self._ticket, self._beat = bench, ticket, beat
        self._trial, self._opened = trial, opened
        self._log = f"ticket {ticket.ticket} | trial {trial.number}"
        self.skipped = 0

    def must_stop(self) -> bool:
        if self._beat.is_lost:
            raise LeaseLost("the lease was given to another worker")
        return self._bench.stop.is_set()

    def report(self, epoch: Epoch) -> bool:
        started_s = time.process_time()
        value = epoch.metrics[self._opened.config.metric]
        self.skipped = epoch.skipped
        self._beat.note(epoch=epoch.epoch, step=epoch.step, value=value)
        self._bench.records.save_epoch(
            run_uid=self._ticket.run_uid,
            ticket=self._ticket.ticket,
            epoch=epoch.epoch,
            step=epoch.step,
            values=epoch.flat(),
            predictions=self._rows(epoch.samples, epoch=epoch.epoch, step=epoch.step),
        )
        is_pruned = False
        if epoch.epoch == 0:
            # What a sampler takes a diverged trial to be worth; shown to nobody.
            storage = self._opened.storage
            storage.set_trial_system_attr(self._trial._trial_id, UNTRAINED, value)
        else:
            _logger.info("%s | %s", self._log, epoch.line())
            self._trial.report(value, epoch.epoch)
            is_pruned = epoch.epoch < epoch.epochs and self._trial.should_prune()
        # Telling others is not training.
        self._bench.training_cpu_s -= time.process_time() - started_s
        return is_pruned

    def note(self, interval: Interval) -> None:
        _logger.info("%s | %s", self._log, interval.line())
        for group in interval.unmoved:
            _logger.warning(
                "%s | the gradient of '%s' has been zero for 20 steps: nothing trains it",
                self._log,
                group,
            )

    def keep(self, samples: Sequence[Sample], *, epoch: int, step: int) -> None:
        started_s = time.process_time()
        self._bench.records.save_predictions(self._rows(samples, epoch=epoch, step=step))
        self._bench.training_cpu_s -= time.process_time() - started_s

    def _rows(self, samples: Sequence[Sample], *, epoch: int, step: int) -> list[dict[str, Any]]:
        """Predictions as rows of the record, and a line of the log on them."""
        failed = [sample for sample in samples if sample.error is not None]
        if failed:
            text = "%s | step %d: %d predictions saved, %s, the first in sample %d: %s"
            count = f"{len(failed)} error{'s' if len(failed) > 1 else ''}"
            first = (failed[0].sample, failed[0].error)
            _logger.warning(text, self._log, step, len(samples) - len(failed), count, *first)
        elif samples:
            _logger.info("%s | step %d: %d predictions saved", self._log, step, len(samples))
        return self._bench.records.prediction_rows(
            samples,
            run_uid=self._ticket.run_uid,
            trial_number=self._trial.number,
            epoch=epoch,
            step=step,
        )
