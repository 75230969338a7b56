"""Our own tables of what trials did: metrics by epoch, divergences, environments they ran in.

Border: rows in, rows out. Optuna's tables are `storage`'s, tickets are `budget`'s.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert

from hpo.database import patiently
from hpo.errors import Divergence
from hpo.schema import divergences, environments, metrics

_PACKAGES = ("torch", "optuna", "sqlalchemy", "psycopg2-binary", "optuna-dashboard", "numpy")


def environment(*, device: str, threads: int) -> dict[str, Any]:
    """What a result may depend on: host, interpreter, packages, device, threads."""
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": device,
        "threads": threads,
        "cpus": os.cpu_count(),
    }


def git_sha() -> str:
    """The commit that this program was started from; '-' where it is no clone."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "-"
    return found.stdout.strip() or "-"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class Records:
    """The records of one study."""

    def __init__(self, engine: sa.Engine, study_uid: str) -> None:
        self._engine = engine
        self._study_uid = study_uid

    def save_environment(self, worker: str, details: Mapping[str, Any]) -> None:
        """Keep what a worker runs on."""
        self._insert(environments, worker=worker, details=dict(details))

    def save_epoch(
        self, *, run_uid: str, ticket: int, epoch: int, step: int, values: Mapping[str, float]
    ) -> None:
        """Keep what an epoch measured. An epoch repeated after an interruption is kept once.

        JSON has no NaN: a value that is not finite is kept as its name.
        """
        finite = {k: v if abs(v) < float("inf") else str(v) for k, v in values.items()}
        self._insert(metrics, run_uid=run_uid, ticket=ticket, epoch=epoch, step=step, values=finite)

    def divergence_row(
        self,
        verdict: Divergence,
        *,
        run_uid: str,
        ticket: int,
        trial_number: int,
        precision: str,
        artifact_id: str | None,
    ) -> Insert:
        """The statement that keeps why the guard ended a trial, for the transaction that does."""
        found = verdict.evidence
        values = {
            "ticket": ticket,
            "run_uid": run_uid,
            "reason": verdict.reason,
            "detail": verdict.detail,
            "precision": precision,
            "term": found.term,
            "parameter": found.parameter,
            "operation": found.operation,
            "evidence": found.flat(),
            "artifact_id": artifact_id,
        }
        key = {"study_uid": self._study_uid, "trial_number": trial_number}
        statement = insert(divergences).values(**key, **values)
        return statement.on_conflict_do_update(index_elements=list(key), set_=values)

    def divergence(self, trial_number: int) -> Mapping[str, Any] | None:
        """What is kept of a trial's divergence, by the table's columns; None where nothing is."""
        statement = sa.select(divergences).where(
            divergences.c.study_uid == self._study_uid, divergences.c.trial_number == trial_number
        )

        def once() -> Mapping[str, Any] | None:
            with self._engine.connect() as connection:
                row = connection.execute(statement).mappings().one_or_none()
                return None if row is None else dict(row)

        return patiently(once)

    def _insert(self, table: sa.Table, **values: Any) -> None:
        statement = insert(table).values(study_uid=self._study_uid, **values)
        self._execute(statement.on_conflict_do_nothing())

    def _execute(self, statement: Insert) -> None:
        def once() -> None:
            with self._engine.begin() as connection:
                connection.execute(statement)

        patiently(once)
