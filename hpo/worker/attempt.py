"""One attempt at one ticket's trial: create or resume it, train it, store its result.

Border: one trial. `worker` takes the tickets and runs the process.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import optuna
import torch
from optuna.artifacts import upload_artifact
from optuna.trial import TrialState

from hpo.database.outside import trial_state
from hpo.engine import checkpoint_files
from hpo.engine.plan import Plan, Result
from hpo.engine.trial import train
from hpo.errors import ObjectiveError, StopRequested
from hpo.guard.evidence import Divergence
from hpo.guard.verdict import NONFINITE
from hpo.search.hopeless import LOST
from hpo.search.samplers import RERUN_OF
from hpo.study import study
from hpo.study.outcomes import ATTEMPT
from hpo.task.build import build, plain
from hpo.task.contract import first_fault
from hpo.task.forward import wider
from hpo.task.memory import memory_error, used_by_others
from hpo.task.raised import described, in_one_line, traceback_of
from hpo.task.random_state import seed_all
from hpo.task.saving import save
from hpo.tickets.losses import verdict as verdict_on
from hpo.tickets.ticket import Ticket
from hpo.worker import checkpoints, creation
from hpo.worker.border import Asked, own_error
from hpo.worker.context import WorkerContext
from hpo.worker.heartbeat import Beat
from hpo.worker.reporter import TrialReporter
from objectives import Params, bound

# Weights and a batch are some MB; a step far larger than that would fill the study's database.
_MAX_STEP_BYTES = 512 << 20

# This system attribute marks a trial that ran out of memory once while others used the GPU.
_TRIED_AGAIN = "hpo:tried_again"

_logger = logging.getLogger(__name__)


class Attempt:
    """One attempt at one ticket's trial, from its start or its checkpoint to its end."""

    def __init__(self, context: WorkerContext, ticket: Ticket, beat: Beat) -> None:
        self._context, self._ticket, self._beat = context, ticket, beat
        beat.forget()
        self._opened = creation.as_begun(context.opened, ticket)
        self._started_at = time.monotonic()
        self._seconds = 0.0
        config = self._opened.config
        # The seed depends on the ticket and not on the attempt: after an interrupted ask, the next
        # attempt must ask for the same configuration.
        self._seed = study.derive_seed(config.seed, ticket.ticket)
        self._study = self._opened.load(sampler_seed=self._seed)
        self._trial, self._refusal = creation.begin(
            ticket, self._opened, self._study, context.objective
        )
        self._precision = self._choose_precision()
        self._log = f"ticket {ticket.ticket} | trial {self._trial.number}"
        beat.watch(trial_state(self._trial._trial_id))
        self._reporter = TrialReporter(context, ticket, beat, self._trial, self._opened)

    def _choose_precision(self) -> str:
        """The study's precision; for a rerun the one that it began in, or the next wider one."""
        asked = self._opened.config.precision
        if self._ticket.rerun_of is None:
            return asked
        begun: str | None = self._trial.user_attrs.get("precision")
        return begun or wider(asked, self._context.device) or asked

    def run(self) -> Ticket | None:
        """Train the trial and end it; return the ticket if another trial has to repeat it."""
        trial = self._trial
        hopeless = verdict_on(self._ticket)
        if hopeless is not None:
            if self._ticket.losses:
                self._opened.storage.set_trial_system_attr(trial._trial_id, LOST, True)
            self._end(TrialState.FAIL, detail=hopeless)
            return None
        if self._is_cancelled:
            self._context.process_state.restore()
            self._cancel()
            return None
        if self._refusal is not None:
            # `defaults` may have set something before it raised.
            self._context.process_state.restore()
            self._end(TrialState.FAIL, detail=self._refusal)
            return None
        # An objective's own `suggest` may draw, too.
        seed_all(self._seed)
        try:
            with self._context.pulse.closing():
                result = self._trained()
        except BaseException as error:
            if isinstance(error, Divergence) and not self._context.pulse.raised_in:
                return self._diverged(error)
            own = own_error(error, self._context.pulse)
            if isinstance(own, StopRequested) and self._is_cancelled:
                self._cancel()
                return None
            if own is error:
                # It says nothing about the configuration.
                raise
            if own is not None:
                raise own from None
            self._end_by(error)
        else:
            self._seconds, self._reporter.skipped = result.seconds, result.skipped
            if result.is_timed_out:
                self._end(TrialState.PRUNED, reason="timeout", detail=self._overdue(result))
            elif result.is_pruned:
                self._end(TrialState.PRUNED, reason="pruner", detail=self._detail_of(result))
            else:
                self._end(TrialState.COMPLETE, value=result.value)
        return None

    @property
    def _is_cancelled(self) -> bool:
        """True if an operator has cancelled this trial, and it is still this worker's."""
        beat = self._beat
        is_ours = not (beat.is_lost or beat.is_over)
        return is_ours and beat.cancelled == self._trial.number

    def _cancel(self) -> None:
        """End the trial as an operator has asked."""
        # It is pruned as a trial that took too long is: what it has reported is worth knowing to
        # sampler and pruner, and a failure would count as the objective's.
        self._end(TrialState.PRUNED, reason="cancelled", detail="by 'workers --cancel'")

    def _trained(self) -> Result:
        """The result of the trial's training; the process is as it was before."""
        storage, trial_id = self._opened.storage, self._trial._trial_id
        try:
            params = self._suggested()
            self._write_attributes()
            storage.set_trial_system_attr(trial_id, ATTEMPT, 0)
            storage.flush(trial_id)
            return self._train(params)
        finally:
            # The end of the trial is ours to write, with our environment, timers and limits.
            self._context.process_state.restore()

    def _suggested(self) -> Params:
        context, config = self._context, self._opened.config
        context.pulse.begin("suggestion")
        asked = Asked(self._trial, context.pulse)
        objective = bound(context.objective, config.options)
        params = config.narrowing.suggest(objective, asked, config.space)
        context.pulse.begin("")
        return params

    def _end_by(self, error: BaseException) -> None:
        """End the trial by what its objective raised.

        Raises:
            StopRequested: The ticket is to be given back, and the trial goes on.
        """
        context = self._context
        if isinstance(error, KeyboardInterrupt) and context.stop.is_set():
            raise StopRequested(f"interrupted in {context.pulse.raised_in}") from error
        if isinstance(error, optuna.TrialPruned):
            self._end(TrialState.PRUNED, reason="objective", detail=in_one_line(error) or "-")
            return
        if context.device.type == "cuda":
            # An error that broke the device raises again here and ends this process, as a loss
            # that the trial may have caused; another worker resumes the ticket. A library that is
            # 'not initialized' may be the consequence of one.
            context.pulse.begin("synchronization")
            torch.cuda.synchronize()
            context.pulse.begin("")
        memory = memory_error(error)
        if memory is not None:
            self._give_back_once(error)
            own = "" if memory is error else f"{described(error)}: "
            self._end(TrialState.PRUNED, reason="oom", detail=own + described(memory))
            return
        _logger.error("%s | the objective raised", self._log, exc_info=error)
        self._trial.set_user_attr("traceback", traceback_of(error))
        self._end(TrialState.FAIL, detail=described(error))

    def _give_back_once(self, error: BaseException) -> None:
        """Have a trial tried once more that ran out of memory while others used its GPU."""
        storage, trial_id = self._opened.storage, self._trial._trial_id
        others = used_by_others(self._context.device)
        if not others or _TRIED_AGAIN in storage.get_trial(trial_id).system_attrs:
            return
        storage.set_trial_system_attr(trial_id, _TRIED_AGAIN, True)
        storage.flush(trial_id)
        raise StopRequested(
            f"out of memory while other processes used {others >> 20} MiB of the GPU; the trial is "
            "tried once more"
        ) from error

    def _diverged(self, verdict: Divergence) -> Ticket | None:
        """Store the evidence and end the trial; return the ticket if a rerun is due."""
        self._seconds, self._reporter.skipped = verdict.seconds, verdict.skipped
        evidence, storage = verdict.evidence, self._opened.storage
        row = {
            "ticket": self._ticket.ticket,
            "run_uid": self._ticket.run_uid,
            "reason": verdict.reason,
            "detail": verdict.detail,
            "precision": self._precision,
            "term": evidence.term,
            "parameter": evidence.parameter,
            "operation": evidence.operation,
            "evidence": evidence.flat(),
            "artifact_id": self._store_step(verdict),
        }
        is_rerun_due = (
            verdict.reason == "precision_range"
            and self._opened.config.on_precision_range == "rerun"
            and self._ticket.rerun_of is None
        )
        ticket = self._ticket.to_rerun(self._trial.number) if is_rerun_due else self._ticket
        storage.pass_on(ticket)
        storage.at_end(self._context.records.divergence_statement(self._trial.number, row))
        self._end(TrialState.PRUNED, reason=verdict.reason, detail=verdict.detail)
        # A `Rerun` does not end its ticket with the trial, so the next trial holds a plain one.
        return Ticket(**vars(ticket)) if is_rerun_due else None

    def _store_step(self, verdict: Divergence) -> str | None:
        """Store the diverged step as an artifact of the trial; return its id, None without one."""
        if verdict.saved is None:
            return None
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"trial_{self._trial.number:05d}.step.pt"
                save(dict(verdict.saved), path)
                if path.stat().st_size > _MAX_STEP_BYTES:
                    size_mb = path.stat().st_size // 1_000_000
                    _logger.warning("%s | a step of %d MB is not kept", self._log, size_mb)
                    return None
                return upload_artifact(
                    artifact_store=self._context.artifacts,
                    file_path=str(path),
                    study_or_trial=self._trial,
                    mimetype="application/octet-stream",
                )
        except Exception as error:
            # The verdict is valid without the file, and a full disk must not fail the trial.
            _logger.warning("%s | the step cannot be kept: %s", self._log, error)
            return None

    def _train(self, params: Params) -> Result:
        context, config = self._context, self._opened.config
        about = {
            "study": config.stored(),
            "trial": self._trial.number,
            "params": plain(params),
            "seed": self._seed,
        }
        context.pulse.begin("build")
        task = build(about, context.device, context.objective)
        fault = first_fault(task, context.device)
        if fault is not None:
            raise ObjectiveError(fault)
        plan = Plan(
            epochs=config.epochs_per_trial,
            precision=self._precision,
            device=context.device,
            metric=config.metric,
            checkpoint=checkpoint_files.file_of(
                context.checkpoints, self._trial.number, self._ticket.attempt
            ),
            about=about,
            predictions=context.recording.samples,
            predictions_every=context.recording.every,
            timeout_s=context.trial_timeout_s,
        )
        _logger.info("%s | %s", self._log, dict(params))
        steps = config.epochs_per_trial * task.steps_per_epoch
        with context.pulse.outside():
            self._reporter.lacking = self._lacking(plan.checkpoint, steps)
        self._beat.note(epoch=0, epochs=config.epochs_per_trial, step=0, steps=steps)
        started_s = time.process_time()
        try:
            return train(task, plan, self._reporter)
        finally:
            context.training_cpu_s += time.process_time() - started_s

    def _lacking(self, path: Path | None, steps: int) -> str | None:
        """Have a checkpoint here that an interrupted trial goes on from.

        Returns:
            Why there is none, or none that can be used; None for a trial that begins.
        """
        ticket, depot, why = self._ticket, self._context.depot, None
        is_begun = ticket.attempt > 1 and ticket.trial_number is not None
        if depot is not None:
            on_copied = self._reporter.on_copied
            depot.begin(ticket, self._trial.number, steps=steps, on_copied=on_copied)
            why = depot.bring(self._context.stop) if is_begun else None
        if not is_begun or path is None:
            return None
        if checkpoint_files.earlier(path):
            return "none of its checkpoints can be used"
        step = ticket.saved_step
        what = f"its checkpoint of step {step} is not" if step else "there is no checkpoint of it"
        if why is not None:
            return f"{what} in '{path.parent}', and {why}"
        return f"{what} in '{path.parent}' on this host (--checkpoint_dir)"

    def _end(
        self, state: TrialState, *, reason: str = "-", detail: str = "-", value: float | None = None
    ) -> None:
        """End trial, ticket and lease in one transaction."""
        _logger.info("%s | %s %s %s", self._log, state.name.lower(), reason, detail)
        storage, trial_id = self._opened.storage, self._trial._trial_id
        self._write_attributes(reason=reason, detail=detail)
        storage.set_trial_system_attr(trial_id, ATTEMPT, self._ticket.attempt)
        # Some samplers demand a constraint of all trials or of none. A trial that ran out of
        # memory is as infeasible as one that diverged.
        is_infeasible = reason in (*NONFINITE, "oom")
        self._trial.set_constraint("nonfinite", float(is_infeasible))
        self._study.tell(self._trial, value, state=state)
        checkpoints.keep_best(
            self._context,
            self._opened,
            number=self._trial.number,
            attempt=self._ticket.attempt,
            value=value,
        )

    def _detail_of(self, result: Result) -> str:
        return f"{self._opened.config.metric} {result.value:.4g} after epoch {result.epochs}"

    def _overdue(self, result: Result) -> str:
        epochs = f"{result.epochs} of {self._opened.config.epochs_per_trial} epochs"
        return f"{result.seconds:.0f} s are over after {epochs} (--trial_timeout)"

    def _write_attributes(self, *, reason: str = "-", detail: str = "-") -> None:
        """Set the trial's attributes in the order in which the dashboard shows them."""
        seconds = self._seconds or time.monotonic() - self._started_at
        on_gpu = self._context.device.type == "cuda"
        attributes = {
            "prune_reason": reason,
            "prune_detail": detail,
            "precision": self._precision,
            "worker": self._context.name,
            "seconds": round(seconds, 3),
            "gpu_seconds": round(seconds, 3) if on_gpu else 0.0,
            "skipped_steps": self._reporter.skipped,
            "run_uid": self._ticket.run_uid,
            "seed": self._seed,
            "git_sha": self._context.git_sha,
        }
        if self._ticket.rerun_of is not None:
            attributes[RERUN_OF] = self._ticket.rerun_of
        if self._opened.config.forced:
            attributes["forced"] = dict(self._opened.config.forced)
        for name, value in attributes.items():
            self._trial.set_user_attr(name, value)
