"""One process on one slot: take tickets until the budget is spent.

Border: combines study, budget, records and engine, one trial at a time. `hpo.fleet` starts and
restarts the process, through its command line alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import sqlalchemy as sa
import torch
from sqlalchemy.exc import SQLAlchemyError

from hpo.database import records
from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.checkpoints import StoredCheckpoints
from hpo.engine import checkpoint_files
from hpo.engine.recording import Recording
from hpo.errors import LeaseLost, RunFailed, StopRequested, TrialEnded, TrialGone
from hpo.launch import children
from hpo.machine.provenance import environment, git_sha
from hpo.machine.version import code_version
from hpo.study import study
from hpo.study.objective import named_objective, source_hash
from hpo.study.objects import Objects
from hpo.study.place import DATABASE
from hpo.study.resolve import check_search
from hpo.tickets.budget import Tickets
from hpo.tickets.crew import Crew
from hpo.tickets.roster import clock_s
from hpo.tickets.ticket import Ticket
from hpo.worker import checkpoints, entry, references
from hpo.worker.attempt import Attempt
from hpo.worker.context import WorkerContext
from hpo.worker.depot import Depot
from hpo.worker.heartbeat import Beat
from hpo.worker.idle import Idle
from hpo.worker.memory import Memory
from hpo.worker.pulse import Pulse

# A signal to all processes of a group may reach the supervisor a moment after this one.
_ASKED_S = 2.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """A worker's command line, parsed.

    Attributes:
        objective: The study's objective as named on this host; None for the study's own name.
        recording: Settings of the predictions that its trials record.
        trial_timeout_s: Wall time of a trial; None for no limit.
        copies: Where checkpoints are copied to: a URL, or `DATABASE`; None for nowhere.
        grace_s: The time that this worker has to stop.
        process: The process with which its leases end, the supervisor; None for this one.
        is_for_one: True if this process trains one trial, and the next has a process of its own.
        gpus: GPUs that its trials take, which count for the study's budget.
        is_launched: True if a run on this host has started it.
        is_mixed: True if workers with other versions of the code are allowed beside it.
        log: The file that it logs to; None if somebody else chose it.
    """

    name: str
    slot: str
    device: str
    checkpoints: Path
    objective: str | None = None
    recording: Recording = field(default_factory=Recording)
    trial_timeout_s: float | None = None
    copies: str | None = None
    grace_s: float = 30.0
    process: str | None = None
    is_for_one: bool = False
    gpus: float = 0.0
    is_launched: bool = False
    is_mixed: bool = False
    log: Path | None = None


class Worker:
    """A worker, which runs trials of one study on one device, one after the other."""

    def __init__(
        self,
        config: WorkerConfig,
        opened: study.OpenStudy,
        db: sa.Engine,
        stop: threading.Event,
        pulse: Pulse | None = None,
    ) -> None:
        self._process, self._is_for_one = config.process, config.is_for_one
        self._is_spent, self._is_drained = False, False
        self._is_mixed, self._crew = config.is_mixed, Crew(db, opened.uid)
        self._slot, self._stop, self._opened = config.slot, stop, opened
        self._gpus, self._copies = config.gpus, config.copies
        self._source, self._db = opened.config.source, db
        self._tickets = Tickets(db, opened.uid)
        # Code that nobody named here is refused before a ticket is taken for it.
        check_search(opened.config)
        self._memory = Memory(torch.device(config.device))
        self._context = WorkerContext(
            name=config.name,
            checkpoints=config.checkpoints,
            device=torch.device(config.device),
            objective=named_objective(
                config.objective, opened.config.objective, what=f"study '{opened.name}'"
            ),
            opened=opened,
            records=records.Records(db, opened.uid),
            artifacts=DatabaseArtifacts(db),
            git_sha=git_sha(),
            stop=stop,
            recording=config.recording,
            pulse=pulse or Pulse(),
            trial_timeout_s=config.trial_timeout_s,
            depot=_depot(config, db, opened.uid),
        )
        self._member = entry.member(
            slot=config.slot,
            process=config.process,
            device=self._context.device,
            version=code_version(source_hash(self._context.objective)),
            is_launched=config.is_launched,
            log=config.log,
        )

    @property
    def training_cpu_s(self) -> float:
        """CPU seconds of this process in training and validation."""
        return self._context.training_cpu_s

    def run(self) -> bool:
        """Take tickets until none is left or a stop is requested.

        Returns:
            True if another process is to take the next ticket, as this one has trained its trial.

        Raises:
            ConfigurationError: The study's other workers have another version of the code.
            RunFailed: The study was deleted, or its objective was changed.
        """
        self._join()
        found = environment(
            device=_device_name(self._context.device), threads=torch.get_num_threads()
        )
        self._context.records.save_environment(self._context.name, found)
        self._memory.settle()
        try:
            return self._work()
        finally:
            if self._context.depot is not None:
                self._context.depot.close(self._stop)

    def _work(self) -> bool:
        renew = partial(self._crew.renew, self._member)
        with Idle(self._tickets, self._stop, self._member.keys, renew) as idle:
            while not (self._stop.is_set() or self._is_drained):
                idle.sweep()
                ticket = None if self._is_spent else self._take()
                if ticket is not None:
                    idle.end()
                    self._run_ticket(ticket)
                    self._is_spent = self._is_for_one
                    if ticket.ticket == 1:
                        references.save(self._context, self._opened, self._db)
                    continue
                outlook = idle.wait()
                self._is_drained = outlook.is_drained
                if outlook.is_over and not outlook.is_spent:
                    spent, left = self._tickets.spent(), self._tickets.count().open
                    _logger.info("%s", spent.sentence(left=left))
                    break
                if self._is_spent and outlook.is_open and not self._is_drained:
                    return True
                if outlook.is_spent and not self._stop.is_set():
                    waiting = study.refreshed(self._opened).waiting()
                    if not self._tickets.queue.make_room(waiting):
                        # The worker of ticket 1 may have been lost before it saved them.
                        references.save(self._context, self._opened, self._db)
                        checkpoints.sweep(self._context, study.refreshed(self._opened))
                        break
        self._leave()
        return False

    def _join(self) -> None:
        """Enter the crew, with the facts of this host."""
        context = self._context
        facts = entry.facts(
            self._member.version,
            context.checkpoints,
            copies=self._copies,
            git=context.git_sha,
            clock_s=clock_s(self._db),
        )
        self._crew.sweep()
        self._crew.join(self._member, facts, is_mixed=self._is_mixed)

    def _leave(self) -> None:
        """Leave the crew; a database that is away finds out by itself."""
        if self._is_drained:
            _logger.info("asked to leave by 'workers --drain'; leaving")
        with suppress(SQLAlchemyError):
            self._crew.leave(self._member)

    def _take(self) -> Ticket | None:
        return self._tickets.take(
            worker=self._context.name, slot=self._slot, process=self._process, gpus=self._gpus
        )

    def _measured(self) -> Mapping[str, float | None]:
        """What a beat tells of the training beside its progress."""
        device = self._context.device
        gpu_bytes = torch.cuda.memory_reserved(device) if device.type == "cuda" else None
        return {"step_s": self._context.pulse.step_s(), "gpu_bytes": gpu_bytes}

    def _run_ticket(self, ticket: Ticket) -> None:
        """Run the ticket's trial, and its rerun in a wider precision if one is due."""
        pulse, earlier = self._context.pulse, children.living()
        pulse.hold(ticket.ticket, ticket.attempt, ticket.study_uid)
        try:
            with Beat(self._tickets, ticket, pulse, self._measured) as beat:
                # The lease blocks changes of the study from here on, so it is read now.
                self._context.opened = study.refreshed(self._opened)
                if self._context.opened.config.source != self._source:
                    raise RunFailed("the study's objective was changed; start this run again")
                current: Ticket | None = ticket
                while current is not None:
                    opened = self._context.opened
                    opened.storage.hold(current, (opened.name, opened.study_id))
                    try:
                        current = Attempt(self._context, current, beat).run()
                    except StopRequested:
                        self._release_checkpoint(ticket, beat)
                        raise
        except StopRequested as stopped:
            why = "another program ended its trial" if beat.is_over else ""
            why = "the study is paused" if beat.gives_back and not why else why
            why = "the lease has run out" if beat.is_lost else why
            _logger.info("ticket %d | %s%s", ticket.ticket, stopped, why and f": {why}")
            if beat.is_over:
                self._settle(ticket)
            # Where the ticket was settled or taken by another worker, there is nothing to release.
            if self._is_stopped_by_itself():
                cause = "a signal stopped its process that its supervisor did not pass on"
                _logger.error("ticket %d | %s", ticket.ticket, cause)
                self._tickets.lose(ticket.run_uid, cause=cause)
            else:
                self._tickets.release(ticket.run_uid)
        except LeaseLost as lost:
            _logger.warning("ticket %d | %s", ticket.ticket, lost)
        except (TrialEnded, TrialGone) as over:
            _logger.warning("ticket %d | %s", ticket.ticket, over)
            self._settle(ticket)
            self._tickets.release(ticket.run_uid)
        except KeyError:
            # The study was not found under its name, or another one has that name now.
            if not self._has_moved():
                raise
            self._tickets.release(ticket.run_uid)
        except RunFailed:
            self._tickets.release(ticket.run_uid)
            raise
        finally:
            self._opened.storage.hold(None)
        self._is_drained = beat.is_drained
        pulse.hold(0)
        self._memory.release()
        ended = children.end(earlier=earlier, spare_services=True)
        if ended:
            _logger.info("ticket %d | ended %d processes of its trial", ticket.ticket, ended)

    def _release_checkpoint(self, ticket: Ticket, beat: Beat) -> None:
        """Have the last checkpoint of a trial where other workers find it, while it is ours."""
        depot = self._context.depot
        if depot is None or beat.is_over or beat.is_lost:
            return
        step = depot.release(ticket)
        if step is not None:
            with suppress(SQLAlchemyError):
                self._tickets.beat(ticket.run_uid, {"saved_step": step})

    def _settle(self, ticket: Ticket) -> None:
        """Close the ticket of a trial that another program ended or deleted."""
        if self._has_moved():
            # A rename gave the trial a new id, and it goes on there.
            return
        number = self._opened.storage.own_number
        if number is not None:
            # The ticket's next trial may get the same number, and starts anew.
            checkpoint_files.discard(self._context.checkpoints, number, ticket.attempt)
            if self._context.depot is not None:
                self._context.depot.discard(number)
        try:
            self._opened.storage.settle(ticket, self._context.opened.study_id)
        except LeaseLost as lost:
            _logger.warning("ticket %d | %s", ticket.ticket, lost)

    def _is_stopped_by_itself(self) -> bool:
        """Return whether a signal stopped this process that did not come through its supervisor."""
        is_supervised = self._process is not None
        deadline = time.monotonic() + _ASKED_S
        while is_supervised and self._stop.is_set() and not self._context.pulse.is_asked_to_stop:
            if time.monotonic() > deadline:
                return True
            time.sleep(_ASKED_S / 20)
        return False

    def _has_moved(self) -> bool:
        """Return whether the study was renamed since the ticket was taken.

        Raises:
            RunFailed: It was deleted.
        """
        return study.refreshed(self._opened).study_id != self._context.opened.study_id


def _depot(config: WorkerConfig, db: sa.Engine, uid: str) -> Depot | None:
    """The copies of a worker's checkpoints; None if it makes none."""
    if config.copies is None:
        return None
    store = StoredCheckpoints(db, uid) if config.copies == DATABASE else Objects(config.copies, uid)
    return Depot(store, config.checkpoints, grace_s=config.grace_s)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
