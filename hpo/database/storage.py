"""Optuna storage of a PostgreSQL database, fenced and with retries.

Border: nothing here knows what a ticket is. The owner of a trial hands in a `Fence`. Every
transaction checks it before it writes, and the fence may add its own statements to the transaction
that ends the trial.

The parts of Optuna that are not public (`_CachedStorage`, `RDBStorage._…_without_commit`) are
pinned by `tests/database/test_storage.py::test_optuna_still_has_what_the_storage_extends`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as tables
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm

from hpo.database import binding, outside
from hpo.database.buffer import Buffer
from hpo.database.fence import Fence
from hpo.database.frozen import newer, read_trials
from hpo.database.patient import PatientStorage
from hpo.errors import LeaseLost, TrialEnded

# While a trial trains, other workers' trials are read again at most once per second: that reading
# is half of bare Optuna's cost per report.
_REFRESH_S = 1.0

T = TypeVar("T")


# Optuna reads a trial's attributes in the physical order of their rows, which an update changes,
# and the dashboard shows the first six. Sorted by id, they keep the order of writing.
for _name in ("user", "system"):
    _attributes = sa.inspect(tables.TrialModel).relationships[f"{_name}_attributes"]
    _attributes.order_by = [_attributes.target.c[f"trial_{_name}_attribute_id"]]


def open_storage(engine: sa.Engine) -> TrialStorage:
    """The Optuna storage of a database in which `create_tables` has made the tables."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # It prints a statement that failed although the storage tries it again.
    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
    return TrialStorage(_Backend(engine))


class _Backend(RDBStorage):
    """Optuna's storage on the engine of this process, in place of an engine of its own.

    It has the attributes that `RDBStorage.__init__` sets, but for the manager of the tables'
    versions: `create_tables` has compared them.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.engine_kwargs = {}
        self.url = engine.url.render_as_string(hide_password=False)
        self.scoped_session = orm.scoped_session(orm.sessionmaker(bind=engine))
        self.skip_compatibility_check = True
        self.heartbeat_interval = self.grace_period = None
        self.heartbeat_stale_trial_callback = self.failed_trial_callback = None

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        which, values = newer(included_trial_ids, trial_id_greater_than)
        found = read_trials(self.engine, study_id, which, **values)
        return [one for one in found if states is None or one.state in states]


class TrialStorage(PatientStorage):
    """Optuna's storage; under a fence, for a process that writes one trial at a time.

    Writes to the current trial are buffered until `flush` or the trial's end. One transaction then
    checks the fence and the trial's state, and stores them. So parameters are stored all or none,
    and a worker that lost its trial, or whose trial another program ended, writes nothing more. A
    broken connection is retried. Without a fence this is the storage that any Optuna program opens.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._fence: Fence | None = None
        self._buffer = Buffer()
        self._at_end: list[sa.Executable] = []
        self._read_at = 0.0

    @property
    def engine(self) -> sa.Engine:
        """The engine of the database, for our own tables beside Optuna's."""
        engine: sa.Engine = self._backend.engine
        return engine

    def hold(self, fence: Fence | None) -> None:
        """Write the next trial under this fence; discard the last one's buffered writes."""
        self._fence = fence
        self._buffer.clear()
        self._at_end.clear()
        self._read_at = 0.0

    def alongside(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute a statement of the owner's in the transaction of the next flush."""
        if rows:
            self._buffer.statements.append((statement, rows))

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
            TrialEnded: An earlier try created the trial, and another program has ended it.
            TrialGone: Or has deleted it.
        """

        def create(session: orm.Session) -> int:
            return binding.create(
                session,
                self._backend,
                self._fence,
                study_id=study_id,
                user=user_attrs,
                system=system_attrs,
                if_waiting=if_waiting,
            )

        return self._read_afresh(study_id, self._transact(create))

    def resume_trial(self, study_id: int, number: int) -> int:
        """The id of the fence's trial.

        Raises:
            TrialEnded: Another program has ended it.
            TrialGone: Another program has deleted it.
        """
        trial_id = self._transact(lambda session: binding.bound(session, study_id, number))
        return self._read_afresh(study_id, trial_id)

    def _read_afresh(self, study_id: int, trial_id: int) -> int:
        self._read_at = 0.0
        self.get_all_trials(study_id, deepcopy=False)
        return trial_id

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

    def _forget(self, study_id: int, number: int) -> None:
        """Drop a deleted trial from Optuna's cache, where the sampler would see it running."""
        if study_id in self._studies:
            trial_id = self._study_id_and_number_to_trial_id.pop((study_id, number), -1)
            self._trial_id_to_study_id_and_number.pop(trial_id, None)
            self._studies[study_id].unfinished_trial_ids.discard(trial_id)
            self._studies[study_id].trials.pop(number, None)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        if self._fence is None:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        known = self._studies[study_id].param_distribution.setdefault(param_name, distribution)
        check_distribution_compatibility(known, distribution)
        self._buffer.params[param_name] = (param_value_internal, distribution_to_json(distribution))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._fence is None:
            super().set_trial_user_attr(trial_id, key, value)
            return
        self._buffer.user[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._fence is None:
            super().set_trial_system_attr(trial_id, key, value)
            return
        self._buffer.system[key] = value

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        if self._fence is None:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            return
        self._buffer.reports[step] = intermediate_value

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        fence = self._fence
        if fence is None or not state.is_finished():
            return super().set_trial_state_values(trial_id, state, values)

        def end(session: orm.Session) -> None:
            try:
                fence.check(session)
                outside.check_open(session, trial_id)
            except (LeaseLost, TrialEnded):
                if fence.has_ended(session):
                    # An earlier try has committed, but its answer was lost.
                    return
                raise
            trial = tables.TrialModel.find_or_raise_by_id(trial_id, session)
            self._buffer.write(session, trial_id)
            for position, value in enumerate(values or ()):
                self._backend._set_trial_value_without_commit(session, trial, position, value)
            trial.state = state
            trial._datetime_complete_utc = outside.NOW
            for statement in self._at_end:
                session.execute(statement)
            fence.end(session, binding.OUTCOMES[state])

        self._retried(lambda: self._in_transaction(end))
        self.hold(None)
        return True

    def flush(self, trial_id: int) -> None:
        """Write the current trial's buffered values in one transaction.

        Raises:
            LeaseLost: The trial has another owner by now.
            TrialEnded: Another program has ended it.
            TrialGone: Another program has deleted it.
        """

        def write(session: orm.Session) -> None:
            outside.check_open(session, trial_id)
            self._buffer.write(session, trial_id)

        self._transact(write)
        self._buffer.clear()

    def catch_up(self, trial_id: int) -> None:
        """Write the reports that `flush_at_once` could not."""
        if self._buffer.reports:
            self.flush(trial_id)

    def flush_at_once(self, trial_id: int) -> bool:
        """Flush without waiting; while the database is away keep all for later, return False."""

        def flush() -> bool:
            self.flush(trial_id)
            return True

        return self.at_once(flush, False)

    def _transact(self, work: Callable[[orm.Session], T]) -> T:
        def checked(session: orm.Session) -> T:
            if self._fence is not None:
                self._fence.check(session)
            return work(session)

        return self._retried(lambda: self._in_transaction(checked))

    def _in_transaction(self, work: Callable[[orm.Session], T]) -> T:
        with orm.Session(self._backend.engine) as session, session.begin():
            return work(session)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._fence is not None and time.monotonic() - self._read_at < _REFRESH_S:
            return
        super()._read_trials_from_remote_storage(study_id)
        self._read_at = time.monotonic()
