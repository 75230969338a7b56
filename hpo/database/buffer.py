"""Writes to one trial that wait for its next transaction.

Border: knows Optuna's tables of a trial's values; `storage` decides when they are written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models as tables
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql


class Buffer:
    """Parameters, attributes, reports and the owner's statements, in the order of writing.

    Written twice, after an answer that was lost, they are the same.
    """

    def __init__(self) -> None:
        self.params: dict[str, tuple[float, str]] = {}
        self.user: dict[str, Any] = {}
        self.system: dict[str, Any] = {}
        self.reports: dict[int, float] = {}
        self.statements: list[tuple[sa.Executable, Sequence[Mapping[str, Any]]]] = []

    def clear(self) -> None:
        """Discard all of it."""
        for part in (self.params, self.user, self.system, self.reports, self.statements):
            part.clear()

    def write(self, session: orm.Session, trial_id: int) -> None:
        """Write all of it to a trial; keep it, because the transaction may fail."""
        params = [
            {"param_name": name, "param_value": value, "distribution_json": dist}
            for name, (value, dist) in self.params.items()
        ]
        as_stored = tables.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        reports = [
            {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
            for step, (stored, kind) in ((s, as_stored(v)) for s, v in self.reports.items())
        ]
        _upsert(session, tables.TrialParamModel, trial_id, params)
        set_attributes(session, trial_id, user=self.user, system=self.system)
        _upsert(session, tables.TrialIntermediateValueModel, trial_id, reports)
        for statement, rows in self.statements:
            session.execute(statement, rows)


def set_attributes(
    session: orm.Session, trial_id: int, *, user: Mapping[str, Any], system: Mapping[str, Any]
) -> None:
    """Set attributes of a trial, whatever its state."""
    for model, values in (
        (tables.TrialUserAttributeModel, user),
        (tables.TrialSystemAttributeModel, system),
    ):
        rows = [{"key": key, "value_json": json.dumps(value)} for key, value in values.items()]
        _upsert(session, model, trial_id, rows)


def _upsert(
    session: orm.Session, model: Any, trial_id: int, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows of one of Optuna's tables, or replace those with the same unique key."""
    if not rows:
        return
    table = model.__table__
    key = next(
        [column.name for column in constraint.columns]
        for constraint in table.constraints
        if isinstance(constraint, sa.UniqueConstraint)
    )
    insert = postgresql.insert(table).values([{"trial_id": trial_id, **row} for row in rows])
    changed = {name: insert.excluded[name] for name in rows[0] if name not in key}
    session.execute(insert.on_conflict_do_update(index_elements=key, set_=changed))
