"""Optuna storage of a PostgreSQL database, fenced and with retries.

Border: the current trial in memory, and when it is written. The owner of a trial hands in a
`Fence`, which every write checks; `trial_writer` writes.

The parts of Optuna that are not public (`_CachedStorage`) are pinned by
`tests/database/test_storage.py::test_optuna_still_has_what_the_storage_extends`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
)
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _StudyInfo
from optuna.storages._rdb import models as tables
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm

from hpo.database import binding, outside, trial_writer
from hpo.database.backend import Backend
from hpo.database.buffer import Buffer
from hpo.database.fence import Fence
from hpo.database.history import History
from hpo.database.history_reader import HistoryReader
from hpo.database.own_trial import OwnTrial, created
from hpo.database.patient import PatientStorage
from hpo.database.trial_writer import Begun

# While a trial trains, other workers' trials are read again at most once per second: that reading
# is half of bare Optuna's cost per report.
_REFRESH_S = 1.0
# Reports of short epochs are written together: this time after the last ones, by the next step or
# report, or with the end of their trial.
_BEHIND_S = 0.5

T = TypeVar("T")


def open_storage(engine: sa.Engine) -> TrialStorage:
    """The Optuna storage of a database in which `create_tables` has made the tables."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # It prints a statement that failed although the storage tries it again.
    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
    return TrialStorage(Backend(engine))


class TrialStorage(PatientStorage):
    """Optuna's storage; under a fence, for a process that writes one trial at a time.

    The trial under the fence is kept in memory, and writes to it are buffered until `flush` or its
    end. One call then checks the fence and the trial's state, and stores them. So parameters are
    stored all or none, and a worker that lost its trial, or whose trial another program ended,
    writes nothing more. A broken connection is retried. Without a fence this is the storage that
    any Optuna program opens.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._fence: Fence | None = None
        self._name: tuple[str, int] | None = None
        self._own: OwnTrial | None = None
        self._buffer = Buffer()
        self._at_end: list[sa.Executable] = []
        self._read_at = self._looked_at = self._written_at = 0.0
        self._readers: dict[int, HistoryReader] = {}

    @property
    def engine(self) -> sa.Engine:
        """The engine of the database, for our own tables beside Optuna's."""
        engine: sa.Engine = self._backend.engine
        return engine

    @property
    def own_number(self) -> int | None:
        """The number of the current trial; None before it is created or found."""
        return None if self._own is None else self._own.number

    def hold(self, fence: Fence | None, study: tuple[str, int] | None = None) -> None:
        """Write the next trial under this fence; discard the last one's buffered writes.

        Args:
            study: Name and id of the fence's study, if its rows were just read.
        """
        self._fence, self._name = fence, study
        self._own = None
        self._buffer.clear()
        self._at_end.clear()
        self._read_at = self._looked_at = 0.0

    def pass_on(self, fence: Fence) -> None:
        """Go on with the current trial, and what is buffered of it, under another fence."""
        self._fence = fence

    def alongside(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute a statement of the owner's in the transaction of the next flush."""
        if rows:
            self._buffer.statements.append((statement, rows))

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Store a row of `hpo.metrics` with the next flush: what `Records.epoch` returns."""
        self._buffer.metrics.append(row)

    def at_end(self, statement: sa.Executable) -> None:
        """Execute a statement of the owner's in the transaction that ends the current trial."""
        self._at_end.append(statement)

    def create_trial(
        self,
        study_id: int,
        *,
        user_attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any],
        if_waiting: Mapping[str, Any] | None = None,
    ) -> int:
        """Create a running trial with its attributes under the fence; return its id.

        Args:
            if_waiting: Further system attributes of a trial that another program enqueued. Given
                them, the first one that waits is begun in place of a new trial.

        Raises:
            LeaseLost: The trial has another owner by now.
            TrialEnded: An earlier try created the trial, and another program has ended it.
            TrialGone: Or has deleted it.
        """
        begun = self._begun(study_id, user_attrs, system_attrs, if_waiting)
        if begun.is_new:
            system = {**system_attrs, outside.NUMBER: begun.number}
            return self._keep(study_id, created(begun, user_attrs, system))
        return self._keep(study_id, self._backend_trial(begun.trial_id))

    def resume_trial(self, study_id: int) -> int:
        """The id of the fence's trial.

        Raises:
            LeaseLost: The trial has another owner by now.
            TrialEnded: Another program has ended it.
            TrialGone: Another program has deleted it.
        """
        begun = self._begun(study_id, None, None, None)
        return self._keep(study_id, self._backend_trial(begun.trial_id))

    def _begun(
        self,
        study_id: int,
        user: Mapping[str, Any] | None,
        system: Mapping[str, Any] | None,
        if_waiting: Mapping[str, Any] | None,
    ) -> Begun:
        fence = self._held()
        return self._retried(
            lambda: trial_writer.begin(
                self.engine,
                fence,
                study_id=study_id,
                user=user,
                system=system,
                if_waiting=if_waiting,
            )
        )

    def _held(self) -> Fence:
        assert self._fence is not None
        return self._fence

    def _backend_trial(self, trial_id: int) -> FrozenTrial:
        found: FrozenTrial = self._retried(lambda: self._backend.get_trial(trial_id))
        return found

    def _keep(self, study_id: int, trial: FrozenTrial) -> int:
        """Keep the trial under the fence in memory; return its id."""
        with self._lock:
            known = self._studies.setdefault(study_id, _StudyInfo()).param_distribution
        self._own = OwnTrial(trial, self._buffer, known)
        return self._own.trial_id

    def settle(self, fence: Fence, study_id: int) -> None:
        """Close the owner's rows of a trial that another program ended, or deleted.

        Ended, the rows take the state that the trial has; deleted, they ask for another trial.

        Raises:
            LeaseLost: They have another owner by now.
        """

        deleted: int | None = None

        def close(session: orm.Session) -> None:
            nonlocal deleted
            deleted = binding.close(session, fence, study_id)

        self.hold(None)
        try:
            self._retried(lambda: self._in_transaction(close))
        finally:
            # A try may have committed although its answer was lost; the next one is refused.
            if deleted is not None:
                self._forget(study_id, deleted)

    def _in_transaction(self, work: Callable[[orm.Session], T]) -> T:
        with orm.Session(self.engine) as session, session.begin():
            return work(session)

    def _forget(self, study_id: int, number: int) -> None:
        """Drop a deleted trial from Optuna's cache, where the sampler would see it running."""
        if study_id in self._studies:
            trial_id = self._study_id_and_number_to_trial_id.pop((study_id, number), -1)
            self._trial_id_to_study_id_and_number.pop(trial_id, None)
            self._studies[study_id].unfinished_trial_ids.discard(trial_id)
            self._studies[study_id].trials.pop(number, None)

    def history(self, study_id: int) -> History:
        """The study's trials in columns, as of the last second."""
        reader = self._readers.setdefault(study_id, HistoryReader(self.engine, study_id))
        if time.monotonic() - self._looked_at >= _REFRESH_S:
            self.refresh_history(study_id, running=False)
        return reader.history

    def refresh_history(self, study_id: int, *, running: bool = True, rungs: bool = False) -> None:
        """Read what changed in the study's trials.

        Args:
            running: Read the parameters and rungs of running trials, too, which many workers have.
            rungs: Read their rungs alone.
        """
        reader = self._readers.setdefault(study_id, HistoryReader(self.engine, study_id))
        self._retried(lambda: reader.refresh(running=running, rungs=rungs))
        self._looked_at = time.monotonic()

    def get_study_id_from_name(self, study_name: str) -> int:
        if self._name is not None and self._name[0] == study_name:
            return self._name[1]
        return super().get_study_id_from_name(study_name)

    def _held_trial(self, trial_id: int) -> OwnTrial | None:
        """The trial in memory, if it is this one; ended, it stays until the next one begins."""
        own = self._own
        return own if own is not None and own.trial_id == trial_id else None

    def _writable(self, trial_id: int) -> OwnTrial | None:
        """The trial under the fence, if it is this one."""
        return None if self._fence is None else self._held_trial(trial_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        own = self._held_trial(trial_id)
        return super().get_trial(trial_id) if own is None else own.copied()

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        own = self._held_trial(trial_id)
        return super().get_trial_system_attrs(trial_id) if own is None else own.system_attrs

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        own = self._writable(trial_id)
        if own is None:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        else:
            own.set_param(param_name, param_value_internal, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        own = self._writable(trial_id)
        if own is None:
            super().set_trial_user_attr(trial_id, key, value)
        else:
            own.set_user_attr(key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        own = self._writable(trial_id)
        if own is None:
            super().set_trial_system_attr(trial_id, key, value)
        else:
            own.set_system_attr(key, value)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        own = self._writable(trial_id)
        if own is None:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        else:
            own.report(step, intermediate_value)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        fence = self._fence
        if fence is None or not state.is_finished():
            return super().set_trial_state_values(trial_id, state, values)
        as_stored = tables.TrialValueModel.value_to_stored_repr
        stored = [(place, *as_stored(value)) for place, value in enumerate(values or ())]
        end = {
            **fence.ending(binding.OUTCOMES[state]),
            "state": state.name,
            "values": [{"o": place, "v": value, "t": kind.name} for place, value, kind in stored],
        }
        self._write(trial_id, end, at_end=[(one, ()) for one in self._at_end])
        self._fence = None
        self._buffer.clear()
        self._at_end.clear()
        if (own := self._held_trial(trial_id)) is not None:
            own.end(state, values)
        return True

    def flush(self, trial_id: int) -> None:
        """Write the current trial's buffered values in one transaction.

        Raises:
            LeaseLost: The trial has another owner by now.
            TrialEnded: Another program has ended it.
            TrialGone: Another program has deleted it.
        """
        # A try that fails is none to repeat at each step either.
        self._written_at = time.monotonic()
        self._write(trial_id)
        self._buffer.clear()

    def _write(
        self,
        trial_id: int,
        end: Mapping[str, Any] | None = None,
        at_end: trial_writer.Statements = (),
    ) -> None:
        fence, content = self._held(), self._buffer.content()
        self._retried(
            lambda: trial_writer.write(
                self.engine,
                fence,
                trial_id,
                number=self.own_number,
                content=content,
                end=end,
                statements=[*self._buffer.statements, *at_end],
            )
        )

    @property
    def is_due(self) -> bool:
        """True if something is buffered, and has waited as long as reports may."""
        return not self._buffer.is_empty and time.monotonic() - self._written_at >= _BEHIND_S

    def flush_at_once(self, trial_id: int) -> bool:
        """Flush without waiting; while the database is away keep all for later, return False."""

        def flush() -> bool:
            self.flush(trial_id)
            return True

        return self.at_once(flush, False)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._fence is not None and time.monotonic() - self._read_at < _REFRESH_S:
            return
        super()._read_trials_from_remote_storage(study_id)
        self._read_at = time.monotonic()
