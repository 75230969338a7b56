"""Optuna storage of a PostgreSQL database, fenced and with retries.

Border: nothing here knows what a ticket is. The owner of a trial hands in a `Fence`. Every
transaction checks it before it writes, and the fence may add its own statements to the transaction
that ends the trial. Only `study.deletion` and `study.copy` know Optuna's tables, too.

The parts of Optuna that are not public (`_CachedStorage`, `RDBStorage._…_without_commit`) are
pinned by `tests/database/test_storage.py::test_optuna_still_has_what_the_storage_extends`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Container, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar, cast

import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models as tables
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from hpo.database.fence import Fence
from hpo.database.patience import with_retries

# While a trial trains, other workers' trials are read again at most once per second: that reading
# is half of bare Optuna's cost per report.
_REFRESH_S = 1.0

T = TypeVar("T")


# Optuna reads a trial's attributes in the physical order of their rows, which an update changes,
# and the dashboard shows the first six. Sorted by id, they keep the order of writing.
_attributes = sa.inspect(tables.TrialModel).relationships["user_attributes"]
_attributes.order_by = [tables.TrialUserAttributeModel.__table__.c.trial_user_attribute_id]


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


class TrialStorage(_CachedStorage):
    """Optuna's storage; under a fence, for a process that writes one trial at a time.

    Writes to the current trial are buffered until `flush`, a report or the trial's end. One
    transaction then checks the fence and stores them. So parameters are stored all or none, and a
    worker that lost its trial writes nothing more. A broken connection is retried. Without a fence
    this is the storage that any Optuna program opens.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._fence: Fence | None = None
        self._params: dict[str, tuple[float, str]] = {}
        self._user: dict[str, Any] = {}
        self._system: dict[str, Any] = {}
        self._reports: dict[int, float] = {}
        self._at_end: list[sa.Executable] = []
        self._read_at = 0.0

    def hold(self, fence: Fence | None) -> None:
        """Write the next trial under this fence; discard the last one's buffered writes."""
        self._fence = fence
        self._forget()
        self._at_end.clear()
        self._read_at = 0.0

    def at_end(self, statement: sa.Executable) -> None:
        """Execute a statement of the owner's in the transaction that ends the current trial."""
        self._at_end.append(statement)

    def create_trial(
        self, study_id: int, *, user_attrs: dict[str, Any], system_attrs: dict[str, Any]
    ) -> int:
        """Create a running trial with its attributes under the fence; return its id."""

        def create(session: orm.Session) -> int:
            # An earlier try may have committed although its answer was lost.
            number = self._fence.begun(session) if self._fence is not None else None
            if number is not None:
                return self._backend.get_trial_id_from_study_id_trial_number(study_id, number)
            tables.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            row = self._backend._get_prepared_new_trial(study_id, template, session)
            session.flush()
            trial_id, number = cast(tuple[int, int], (row.trial_id, row.number))
            if self._fence is not None:
                self._fence.begin(session, number)
            return trial_id

        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs=user_attrs,
            system_attrs=system_attrs,
            intermediate_values={},
        )
        trial_id = self._transact(create)
        self._read_at = 0.0
        self.get_all_trials(study_id, deepcopy=False)
        return trial_id

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
        self._params[param_name] = (param_value_internal, distribution_to_json(distribution))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._fence is None:
            super().set_trial_user_attr(trial_id, key, value)
            return
        self._user[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._fence is None:
            super().set_trial_system_attr(trial_id, key, value)
            return
        self._system[key] = value

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        if self._fence is None:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            return
        self._reports[step] = intermediate_value
        self.flush(trial_id)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        fence = self._fence
        if fence is None or not state.is_finished():
            return super().set_trial_state_values(trial_id, state, values)

        def end(session: orm.Session) -> None:
            trial = tables.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            if trial.state == state:
                # An earlier try has committed, but its answer was lost.
                return
            self._write(session, trial_id)
            for position, value in enumerate(values or ()):
                self._backend._set_trial_value_without_commit(session, trial, position, value)
            trial.state = state
            trial.datetime_complete = datetime.now()
            for statement in self._at_end:
                session.execute(statement)
            fence.end(session, _OUTCOMES[state])

        self._transact(end)
        self.hold(None)
        return True

    def flush(self, trial_id: int) -> None:
        """Write the current trial's buffered values in one transaction."""
        self._transact(lambda session: self._write(session, trial_id))
        self._forget()

    def _forget(self) -> None:
        for buffer in (self._params, self._user, self._system, self._reports):
            buffer.clear()

    def _write(self, session: orm.Session, trial_id: int) -> None:
        trial = tables.TrialModel.find_or_raise_by_id(trial_id, session)
        self.check_trial_is_updatable(trial_id, cast(TrialState, trial.state))
        params = [
            {"param_name": name, "param_value": value, "distribution_json": dist}
            for name, (value, dist) in self._params.items()
        ]
        user = [{"key": k, "value_json": json.dumps(v)} for k, v in self._user.items()]
        system = [{"key": k, "value_json": json.dumps(v)} for k, v in self._system.items()]
        as_stored = tables.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        reports = [
            {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
            for step, (stored, kind) in ((s, as_stored(v)) for s, v in self._reports.items())
        ]
        for model, rows in (
            (tables.TrialParamModel, params),
            (tables.TrialUserAttributeModel, user),
            (tables.TrialSystemAttributeModel, system),
            (tables.TrialIntermediateValueModel, reports),
        ):
            if rows:
                _upsert(session, model, [{"trial_id": trial_id, **row} for row in rows])

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return with_retries(lambda: super(TrialStorage, self).get_trial(trial_id))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return with_retries(
            lambda: super(TrialStorage, self).get_all_trials(study_id, deepcopy, states)
        )

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._fence is not None and time.monotonic() - self._read_at < _REFRESH_S:
            return
        super()._read_trials_from_remote_storage(study_id)
        self._read_at = time.monotonic()

    def _transact(self, work: Callable[[orm.Session], T]) -> T:
        def once() -> T:
            with orm.Session(self._backend.engine) as session, session.begin():
                if self._fence is not None:
                    self._fence.check(session)
                return work(session)

        return with_retries(once)


def _retrying(method: Callable[..., T]) -> Callable[..., T]:
    @wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> T:
        return with_retries(lambda: method(*args, **kwargs))

    return wrapped


# Optuna calls these methods in the middle of a trial, and its own storage does not retry them.
for _name in (
    *("get_study_id_from_name", "get_study_directions", "get_study_user_attrs"),
    *("get_study_system_attrs", "set_study_user_attr", "get_best_trial"),
    *("get_trial_id_from_study_id_trial_number", "get_trial_system_attrs"),
    *("get_all_studies", "get_study_name_from_id", "set_study_system_attr", "create_new_study"),
):
    setattr(TrialStorage, _name, _retrying(getattr(_CachedStorage, _name)))

_OUTCOMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def _upsert(session: orm.Session, model: Any, rows: list[dict[str, Any]]) -> None:
    """Insert rows of one of Optuna's tables, or replace those with the same unique key."""
    table = model.__table__
    key = next(
        [column.name for column in constraint.columns]
        for constraint in table.constraints
        if isinstance(constraint, sa.UniqueConstraint)
    )
    insert = postgresql.insert(table).values(rows)
    changed = {name: insert.excluded[name] for name in rows[0] if name not in key}
    session.execute(insert.on_conflict_do_update(index_elements=key, set_=changed))
