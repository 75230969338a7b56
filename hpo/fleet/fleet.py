"""Keep a worker on each slot: start, restart and stop processes, give lost tickets back.

Border: emits events and returns a result; prints nothing and reads neither argv nor environ. It
reaches a worker through its command line alone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from optuna.trial import FrozenTrial

from hpo.engine.recording import Recording
from hpo.errors import ConfigurationError, RunFailed
from hpo.fleet.events import Event, Finishing, Progress, RunResult, Stopping, WorkerEnded
from hpo.fleet.tally import MOST_FAILURES, Tally
from hpo.launch.launcher import Launcher
from hpo.launch.supervisor import Process, Supervisor
from hpo.machine.slots import Slot
from hpo.study import study
from hpo.study.join import Prepared
from hpo.study.outcomes import best_trial, divergence, is_default, prune_reasons
from hpo.study.request import RunRequest
from hpo.tickets.budget import Budget

_POLL_S = 0.2
_PROGRESS_S = 0.5
# A worker without work ends within a second. The user gets a reason for a longer wait.
_FINISHING_S = 2.0
# No restart cures the cause if a worker ends this early, this often in a row.
_QUICK_DEATH_S = 20.0
_QUICK_DEATHS = 3
# A signal may come from one configuration, which fails after it has lost five workers
# (`MAX_LOSSES`). So more deaths by a signal are accepted.
_QUICK_KILLS = 10


@dataclass(frozen=True, kw_only=True)
class FleetConfig:
    """The configuration of a fleet: slots, folders and times."""

    slots: Sequence[Slot]
    checkpoints: Path
    logs: Path
    grace_s: float = 30.0
    timeout_s: float | None = None
    recording: Recording = field(default_factory=Recording)

    @classmethod
    def below(
        cls, home: Path, request: RunRequest, prepared: Prepared, slots: Sequence[Slot]
    ) -> FleetConfig:
        """The configuration that a run requests; its files are below `home` by default."""
        uid = prepared.opened.uid
        checkpoints = (request.checkpoint_dir or home / "checkpoints") / uid
        return cls(
            slots=slots,
            checkpoints=checkpoints.absolute(),
            logs=home / "logs" / uid,
            grace_s=request.grace_s,
            timeout_s=request.timeout_s,
            recording=request.recording,
        )


def run(
    prepared: Prepared,
    config: FleetConfig,
    launcher: Launcher,
    *,
    emit: Callable[[Event], None],
    stop: threading.Event,
) -> RunResult:
    """Run workers until every ticket has ended, or until `stop` or the timeout.

    Raises:
        RunFailed: Workers die as soon as they start, too many trials failed, or the study was
            deleted.
    """
    fleet = _Fleet(prepared, config, launcher, emit)
    is_interrupted = fleet.work(stop)
    # Its name may be another by now.
    opened = study.refreshed(prepared.opened)
    opened_study = opened.load()
    spent = prepared.tickets.count()
    trials = opened_study.get_trials(deepcopy=False)
    if not is_interrupted and spent.failed == spent.total:
        last = trials[-1].user_attrs.get("prune_detail", "-")
        raise RunFailed(
            f"all {spent.total} trials failed, the last with: {last}; the tracebacks are in the "
            f"workers' logs in '{config.logs}'"
        )
    default = next((t for t in trials if is_default(t)), None)
    return RunResult(
        study=opened.name,
        budget=spent,
        reasons=prune_reasons(trials),
        diverged={t.number: reason for t in trials if (reason := divergence(t))},
        best=best_trial(opened_study),
        default_value=default.value if default else None,
        references=opened_study.user_attrs.get(study.REFERENCES, {}),
        seconds=fleet.seconds,
        is_interrupted=is_interrupted,
    )


class _Fleet:
    """The workers of one run."""

    def __init__(
        self,
        prepared: Prepared,
        config: FleetConfig,
        launcher: Launcher,
        emit: Callable[[Event], None],
    ) -> None:
        self._prepared, self._config = prepared, config
        self._supervisor, self._emit = Supervisor(launcher), emit
        # This counts, by slot, the early deaths of workers in a row.
        self._quick_deaths = dict.fromkeys((slot.name for slot in config.slots), 0)
        self._started_at = time.monotonic()
        self._study = prepared.opened.load()
        self._tally = Tally(len(config.slots))
        self._best: FrozenTrial | None = None
        self._seen_ended = -1
        self._finishing_since: float | None = None
        self._has_announced = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started_at

    def work(self, stop: threading.Event) -> bool:
        """Keep a worker on each slot until the budget is spent; return True if stopped before."""
        tickets, timeout_s = self._prepared.tickets, self._config.timeout_s
        tickets.sweep()
        next_progress_at, is_done = 0.0, False
        try:
            while True:
                if not is_done and time.monotonic() >= next_progress_at:
                    spent = self._report()
                    next_progress_at = time.monotonic() + _PROGRESS_S
                    is_done = spent.ended == spent.total
                    if not is_done:
                        self._tend_workers(spent)
                if is_done and not self._is_finishing():
                    return False
                if timeout_s is not None and self.seconds > timeout_s:
                    self._emit(Stopping(reason=f"{timeout_s:g} s are over"))
                    return not is_done
                if stop.wait(_POLL_S):
                    self._emit(Stopping(reason="interrupted"))
                    return not is_done
        finally:
            stop.clear()
            grace_s = self._config.grace_s
            self._supervisor.end(stop, grace_s=grace_s, note=lambda _: None)
            # A worker that the fleet killed says nothing against its trial.
            tickets.sweep(counts_as_loss=False)

    def _is_finishing(self) -> bool:
        """Return whether to wait for a worker that may still compute the objective's references."""
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
                ended = self._tally.take(self._study.get_trials(deepcopy=False))
                self._best = best_trial(self._study)
                self._seen_ended = spent.ended
            except KeyError:
                self._follow()
        leases = self._prepared.tickets.live()
        self._emit(
            Progress(
                budget=spent,
                leases=leases,
                best=self._best,
                reasons=self._tally.reasons,
                ended=ended,
                seconds=self.seconds,
                left_s=self._tally.left_s(spent, leases),
                trial_s=self._tally.trial_s(leases),
            )
        )
        failed = self._tally.failures
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

    def _tend_workers(self, spent: Budget) -> None:
        """Check the workers that ended; start one on each empty slot while there is work."""
        tickets, supervisor = self._prepared.tickets, self._supervisor
        for process, code in supervisor.take().ended:
            tickets.sweep()
            self._note_death(process, code)
        left = spent.open + spent.leased
        for slot in self._config.slots:
            # More workers than trials would only wait.
            if slot.name not in supervisor.running and len(supervisor.running) < left:
                supervisor.start(
                    slot.name,
                    slot,
                    self._argv(slot),
                    log=self._config.logs / f"worker-{slot.name.replace(':', '-')}.log",
                    # The URL holds the password, and an argv can be read by every user of the host.
                    environment={"HPO_STORAGE": self._prepared.url},
                )

    def _note_death(self, process: Process, code: int) -> None:
        name, log = process.slot.name, process.log
        if code == 0:
            return
        before = self._prepared.opened
        self._follow()
        if self._prepared.opened.study_id != before.study_id:
            # It looked for the study by its former name or id.
            return
        self._emit(WorkerEnded(slot=name, code=code, log=log))
        is_quick = time.monotonic() - process.started_at < _QUICK_DEATH_S
        self._quick_deaths[name] = self._quick_deaths[name] + 1 if is_quick else 0
        most = _QUICK_DEATHS if code > 0 else _QUICK_KILLS
        if self._quick_deaths[name] >= most or code == ConfigurationError.exit_code:
            raise RunFailed(
                f"worker {name} ended with code {code} as soon as it had started; "
                f"its log '{log}' ends: {process.last_line() or '(empty)'}"
            )

    def _argv(self, slot: Slot) -> list[str]:
        opened = self._prepared.opened
        predictions, every = self._config.recording.flags()
        return [
            *(sys.executable, "-m", "hpo", "worker", "--study_name", opened.name),
            *("--slot", slot.name, "--device", slot.device),
            *("--checkpoint_dir", str(self._config.checkpoints)),
            *("--objective", self._prepared.objective),
            *("--predictions", predictions, "--predictions_every", every),
            *("--with_parent", str(os.getpid())),
        ]
