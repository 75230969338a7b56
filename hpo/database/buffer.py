"""Writes to one trial that wait for its next transaction.

Border: collects; `storage` decides when they are written, `trial_writer` writes them.
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
    """Parameters, attributes, reports, metrics and the owner's statements, in order of writing.

    Written twice, after an answer that was lost, they are the same. Attributes are JSON texts.
    """

    def __init__(self) -> None:
        self.params: dict[str, tuple[float, str]] = {}
        self.user: dict[str, str] = {}
        self.system: dict[str, str] = {}
        self.reports: dict[int, float] = {}
        self.metrics: list[Mapping[str, Any]] = []
        self.statements: list[tuple[sa.Executable, Sequence[Mapping[str, Any]]]] = []

    def clear(self) -> None:
        """Discard all of it."""
        parts = (self.params, self.user, self.system, self.reports, self.metrics, self.statements)
        for part in parts:
            part.clear()

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to write."""
        values = (self.params, self.user, self.system, self.reports, self.metrics, self.statements)
        return not any(values)

    def content(self) -> dict[str, Any]:
        """All but the statements, for the function `write_trial`."""
        as_stored = tables.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        reports = [(step, *as_stored(value)) for step, value in self.reports.items()]
        return {
            "params": [{"n": n, "v": value, "d": d} for n, (value, d) in self.params.items()],
            "user": self.user,
            "system": self.system,
            "reports": [{"s": step, "v": value, "t": kind.name} for step, value, kind in reports],
            "metrics": self.metrics,
        }


def checked_name(name: str) -> str:
    """The name of a parameter or an attribute, if the database can store it.

    Raises:
        ValueError: It is too long, or has characters that are none of UTF-8 or of PostgreSQL.
    """
    if "\0" in name or len(name) > tables.MAX_INDEXED_STRING_LENGTH:
        raise ValueError(
            f"the name {name[:40]!r} has {len(name)} characters; write at most "
            f"{tables.MAX_INDEXED_STRING_LENGTH}, and none that is NUL"
        )
    name.encode()
    return name


def set_attributes(
    session: orm.Session, trial_id: int, *, user: Mapping[str, Any], system: Mapping[str, Any]
) -> None:
    """Set attributes of a trial, whatever its state."""
    for model, values in (
        (tables.TrialUserAttributeModel, user),
        (tables.TrialSystemAttributeModel, system),
    ):
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in values.items()
        ]
        if rows:
            insert = postgresql.insert(model.__table__).values(rows)
            changed = {"value_json": insert.excluded.value_json}
            session.execute(
                insert.on_conflict_do_update(index_elements=["trial_id", "key"], set_=changed)
            )
