"""One process, one slot: take tickets until the budget is spent.

Border: joins study, budget, records and engine for one trial after the other. Starting and
restarting processes is the fleet's; it reaches this module by a command line alone.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
import torch
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from hpo import budget, engine, records, study
from hpo.beat import Beat
from hpo.budget import Ticket, Tickets
from hpo.engine import Epoch, Plan
from hpo.errors import Divergence, LeaseLost, StopRequested
from objectives import Context, Objective, Params

# Prune reasons that say that a trial's numbers left the finite ones.
NONFINITE = ("loss_nonfinite", "grad_nonfinite", "metric_nonfinite", "precision_range", "stalled")
# How often a worker without a ticket looks whether one was given back.
_IDLE_S = 1.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker is told by its command line."""

    name: str
    slot: str
    device: str
    checkpoints: Path


class Worker:
    """Runs the trials of one study on one device, one after the other."""

    def __init__(
        self, config: WorkerConfig, opened: study.OpenStudy, db: sa.Engine, stop: threading.Event
    ) -> None:
        self.config, self.opened, self.stop = config, opened, stop
        self.objective: Objective = study.load_objective(opened.config.objective)
        self.device = torch.device(config.device)
        self.tickets = Tickets(db, opened.uid)
        self.records = records.Records(db, opened.uid)
        self.git_sha = records.git_sha()
        # CPU seconds of this process in training and validation.
        self.training_cpu_s = 0.0

    def run(self) -> None:
        """Take tickets until none is left or a stop is asked for."""
        environment = records.environment(
            device=_device_name(self.device), threads=torch.get_num_threads()
        )
        self.records.save_environment(self.config.name, environment)
        while not self.stop.is_set():
            self.tickets.sweep()
            ticket = self.tickets.take(worker=self.config.name, slot=self.config.slot)
            if ticket is not None:
                self._run_ticket(ticket)
                if ticket.ticket == 1:
                    self._save_references()
            elif self.tickets.count().leased:
                # A peer may still give its ticket back.
                self.stop.wait(_IDLE_S)
            else:
                # Also where the worker that ought to have done it was lost.
                self._save_references()
                return

    def _save_references(self) -> None:
        """Keep in the study what other methods reach on the same validation set."""
        found = self.opened.load()
        if self.stop.is_set() or study.REFERENCES in found.user_attrs:
            return
        settings = self.opened.config
        try:
            references = self.objective.references(self.context(settings.seed))
        except Exception:
            _logger.exception("the objective's references cannot be computed")
            return
        found.set_user_attr(study.REFERENCES, dict(references))

    def context(self, seed: int) -> Context:
        """What a trial with this seed is built for."""
        settings = self.opened.config
        return Context(
            device=self.device,
            size=settings.size,
            epochs=settings.epochs,
            seed=seed,
            problem_seed=settings.problem_seed,
            options=settings.options,
        )

    def _run_ticket(self, ticket: Ticket) -> None:
        self.opened.storage.hold(ticket)
        try:
            with Beat(self.tickets, ticket) as beat:
                _Attempt(self, ticket, beat).run()
        except StopRequested as stopped:
            _logger.info("ticket %d | %s", ticket.ticket, stopped)
            self.tickets.release(ticket.run_uid)
        except LeaseLost as lost:
            _logger.warning("ticket %d | %s", ticket.ticket, lost)
        finally:
            self.opened.storage.hold(None)
        _release_memory(self.device)


class _Attempt:
    """One attempt at one ticket's trial; hears of its epochs as the engine's reporter."""

    def __init__(self, worker: Worker, ticket: Ticket, beat: Beat) -> None:
        self._worker, self._ticket, self._beat = worker, ticket, beat
        self._config, self._opened = worker.config, worker.opened
        self._started_at = time.monotonic()
        self._seconds, self._skipped = 0.0, 0
        settings = self._opened.config
        # Not by the attempt: an ask that was cut off must come out the same when repeated.
        self._seed = study.derive_seed(settings.seed, ticket.ticket)
        self._study = self._opened.load(sampler_seed=self._seed)
        self._trial = self._begin()
        self._log = f"ticket {ticket.ticket} | trial {self._trial.number}"

    def _begin(self) -> optuna.Trial:
        """The ticket's trial: the one that it has, or a new one."""
        ticket, storage = self._ticket, self._opened.storage
        study_id = storage.get_study_id_from_name(self._opened.name)
        if ticket.trial_number is not None:
            number = ticket.trial_number
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
            storage.get_all_trials(study_id, deepcopy=False)
        else:
            system: dict[str, Any] = {}
            if ticket.ticket == 1:
                # The default configuration, which the result is compared with.
                defaults = self._worker.objective.defaults(self._opened.config.space)
                system["fixed_params"] = dict(defaults)
            # Alone in the first write: the dashboard shows attributes in the order of writing.
            trial_id = storage.create_trial(
                study_id, user_attrs={"prune_reason": "-"}, system_attrs=system
            )
        return optuna.Trial(self._study, trial_id)

    def run(self) -> None:
        """Train the trial and end it: complete, pruned or failed."""
        trial, settings = self._trial, self._opened.config
        if self._ticket.losses >= budget.MAX_LOSSES:
            self._end(TrialState.FAIL, detail=f"lost its worker {self._ticket.losses} times")
            return
        try:
            params = self._worker.objective.suggest(trial, settings.space)
            self._write_attributes()
            self._opened.storage.flush(trial._trial_id)
            result = self._train(params)
        except Divergence as verdict:
            self._seconds, self._skipped = verdict.seconds, verdict.skipped
            self._end(TrialState.PRUNED, reason=verdict.reason, detail=verdict.detail)
        except torch.OutOfMemoryError as error:
            self._end(TrialState.PRUNED, reason="oom", detail=str(error).splitlines()[0])
        except (StopRequested, LeaseLost, SQLAlchemyError, optuna.exceptions.OptunaError):
            # Nothing about the configuration: the ticket goes on elsewhere.
            raise
        except Exception as error:
            if self._worker.device.type == "cuda":
                # An error that broke the device raises again here and ends this process, so that
                # the ticket goes on elsewhere.
                torch.cuda.synchronize()
            _logger.exception("%s | the objective raised", self._log)
            self._end(TrialState.FAIL, detail=f"{type(error).__name__}: {error}")
        else:
            self._seconds, self._skipped = result.seconds, result.skipped
            if result.is_pruned:
                self._end(TrialState.PRUNED, reason="pruner", detail=self._standing(result))
            else:
                self._end(TrialState.COMPLETE, value=result.value)

    def _train(self, params: Params) -> engine.Result:
        worker, settings = self._worker, self._opened.config
        torch.manual_seed(self._seed)
        task = worker.objective.build(params, worker.context(self._seed))
        plan = Plan(
            epochs=settings.epochs,
            precision=settings.precision,
            device=worker.device,
            metric=settings.metric,
            checkpoint=self._checkpoint(self._trial.number),
            about={"study": asdict(settings), "trial": self._trial.number, "params": dict(params)},
        )
        _logger.info("%s | %s", self._log, dict(params))
        self._beat.note(epoch=0, epochs=settings.epochs)
        started_s = time.process_time()
        try:
            return engine.train(task, plan, self)
        finally:
            worker.training_cpu_s += time.process_time() - started_s

    def must_stop(self) -> bool:
        if self._beat.is_lost:
            raise LeaseLost("the lease was given to another worker")
        return self._worker.stop.is_set()

    def report(self, epoch: Epoch) -> bool:
        started_s = time.process_time()
        value = epoch.metrics[self._opened.config.metric]
        self._skipped = epoch.skipped
        self._beat.note(epoch=epoch.epoch, value=value)
        self._worker.records.save_epoch(
            run_uid=self._ticket.run_uid,
            ticket=self._ticket.ticket,
            epoch=epoch.epoch,
            step=epoch.step,
            values=epoch.flat(),
        )
        is_pruned = False
        if epoch.epoch > 0:
            _logger.info("%s | %s", self._log, epoch.line())
            self._trial.report(value, epoch.epoch)
            is_pruned = epoch.epoch < epoch.epochs and self._trial.should_prune()
        # Telling others is not training.
        self._worker.training_cpu_s -= time.process_time() - started_s
        return is_pruned

    def _end(
        self, state: TrialState, *, reason: str = "-", detail: str = "-", value: float | None = None
    ) -> None:
        """End trial, ticket and lease in one transaction."""
        _logger.info("%s | %s %s %s", self._log, state.name.lower(), reason, detail)
        self._write_attributes(reason=reason, detail=detail)
        # Some samplers demand a constraint of all trials or of none.
        self._trial.set_constraint("nonfinite", float(reason in NONFINITE))
        self._study.tell(self._trial, value, state=state)
        self._sweep_checkpoints()

    def _standing(self, result: engine.Result) -> str:
        return f"{self._opened.config.metric} {result.value:.4g} after epoch {result.epochs}"

    def _write_attributes(self, *, reason: str = "-", detail: str = "-") -> None:
        """Set the trial's attributes, in the order in which they are to be shown."""
        seconds = self._seconds or time.monotonic() - self._started_at
        on_gpu = self._worker.device.type == "cuda"
        attributes = {
            "prune_reason": reason,
            "prune_detail": detail,
            "precision": self._opened.config.precision,
            "worker": self._config.name,
            "seconds": round(seconds, 3),
            "gpu_seconds": round(seconds, 3) if on_gpu else 0.0,
            "skipped_steps": self._skipped,
            "run_uid": self._ticket.run_uid,
            "seed": self._seed,
            "git_sha": self._worker.git_sha,
        }
        for name, value in attributes.items():
            self._trial.set_user_attr(name, value)

    def _checkpoint(self, trial_number: int) -> Path:
        return self._config.checkpoints / f"trial_{trial_number:05d}.pt"

    def _sweep_checkpoints(self) -> None:
        """Delete the checkpoints of ended trials, but for the best one's."""
        trials = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
        try:
            best = self._study.best_trial.number
        except ValueError:
            best = None
        for path in self._config.checkpoints.glob("trial_*"):
            number = int(path.name.split(".")[0].removeprefix("trial_"))
            is_ended = number in trials and trials[number].state.is_finished()
            if is_ended and (number != best or path.suffix == ".tmp"):
                path.unlink(missing_ok=True)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _release_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
