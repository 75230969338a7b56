"""Writes to one trial that wait for its next transaction.

Border: collects; `storage` decides when they are written, `trial_writer` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models as tables


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
