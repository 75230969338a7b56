"""Records of trials in our own tables: metrics, predictions, divergences, environments.

Border: rows in, rows out. What belongs to a trial is a statement here, which `storage` executes
under the trial's fence. Optuna's tables belong to `storage`, tickets to `tickets.budget`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert

from hpo.database.patience import with_retries
from hpo.database.schema import divergences, environments, metrics, predictions
from hpo.files import finite


def _without_overtaken(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without those at or past the first step of a later attempt.

    A later attempt replaces rows of the same step, but it may record at other steps.
    """
    begun: dict[str, tuple[Any, int]] = {}
    for row in rows:
        at, step = begun.get(row["run_uid"], (row["at"], row["step"]))
        begun[row["run_uid"]] = (min(at, row["at"]), min(step, row["step"]))
    return [
        row
        for row in rows
        if not any(
            later > begun[row["run_uid"]][0] and row["step"] >= first
            for run_uid, (later, first) in begun.items()
            if run_uid != row["run_uid"]
        )
    ]


def _renewing(table: sa.Table) -> Insert:
    """An INSERT that replaces rows with the same key."""
    statement = insert(table)
    columns = {c.name: statement.excluded[c.name] for c in table.c if not c.primary_key}
    return statement.on_conflict_do_update(
        index_elements=[c.name for c in table.primary_key], set_={**columns, "at": sa.func.now()}
    )


_RENEWED = _renewing(predictions)


class Records:
    """The records of one study."""

    def __init__(self, engine: sa.Engine, study_uid: str) -> None:
        self._engine = engine
        self._study_uid = study_uid

    def save_environment(self, worker: str, details: Mapping[str, Any]) -> None:
        """Store the environment of a worker."""
        row = {"study_uid": self._study_uid, "worker": worker, "details": dict(details)}

        def once() -> None:
            with self._engine.begin() as connection:
                connection.execute(insert(environments).on_conflict_do_nothing(), [row])

        with_retries(once)

    def epoch(
        self, *, run_uid: str, ticket: int, epoch: int, step: int, values: Mapping[str, float]
    ) -> dict[str, Any]:
        """The row of an epoch's metrics, for the function `write_trial`.

        An epoch repeated after an interruption is stored once. JSON has no NaN: a value that is
        not finite is stored as its name.
        """
        plain = finite(dict(values), names=True)
        where = {"r": run_uid, "e": epoch, "u": self._study_uid, "t": ticket, "s": step}
        return {**where, "v": plain}

    def predicted(
        self,
        samples: Sequence[Mapping[str, Any]],
        *,
        run_uid: str,
        trial_number: int,
        epoch: int,
        step: int,
    ) -> tuple[Insert, list[dict[str, Any]]]:
        """The statement that stores predictions for some validation samples, and its rows.

        Those of a repeated step replace the earlier ones.
        """
        where = {"trial_number": trial_number, "step": step, "epoch": epoch, "run_uid": run_uid}
        rows = [{"study_uid": self._study_uid, **where, **sample} for sample in samples]
        return _RENEWED, rows

    def predictions(self, trial_number: int) -> list[dict[str, Any]]:
        """A trial's stored predictions by step and sample, keyed by the table's columns.

        Where an attempt resumed at a step, rows of earlier attempts beyond it are left out.
        """
        statement = (
            sa.select(predictions)
            .where(
                predictions.c.study_uid == self._study_uid,
                predictions.c.trial_number == trial_number,
            )
            .order_by(predictions.c.step, predictions.c.sample)
        )

        def once() -> list[dict[str, Any]]:
            with self._engine.connect() as connection:
                return [dict(row) for row in connection.execute(statement).mappings()]

        return _without_overtaken(with_retries(once))

    def figures(self, run_uid: str) -> dict[str, Any]:
        """The metrics of an attempt's last epoch, by name; empty if none are stored."""
        statement = (
            sa.select(metrics.c["values"])
            .where(metrics.c.study_uid == self._study_uid, metrics.c.run_uid == run_uid)
            .order_by(metrics.c.epoch.desc())
            .limit(1)
        )

        def once() -> dict[str, Any]:
            with self._engine.connect() as connection:
                return dict(connection.scalar(statement) or {})

        return with_retries(once)

    def divergence_statement(self, trial_number: int, values: Mapping[str, Any]) -> Insert:
        """The statement that stores a divergence, for the transaction that ends the trial.

        Args:
            values: Values by column of `divergences`, without its key.
        """
        key = {"study_uid": self._study_uid, "trial_number": trial_number}
        statement = insert(divergences).values(**key, **values)
        return statement.on_conflict_do_update(index_elements=list(key), set_=dict(values))

    def divergence(self, trial_number: int) -> Mapping[str, Any] | None:
        """A trial's stored divergence, keyed by the table's columns; None if there is none."""
        statement = sa.select(divergences).where(
            divergences.c.study_uid == self._study_uid, divergences.c.trial_number == trial_number
        )

        def once() -> Mapping[str, Any] | None:
            with self._engine.connect() as connection:
                row = connection.execute(statement).mappings().one_or_none()
                return None if row is None else dict(row)

        return with_retries(once)
