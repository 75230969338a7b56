"""Optuna artifact store that keeps the files of trials in the study's own database.

Any machine that reaches the study reaches its files, too. Border: bytes in, bytes out.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound
from sqlalchemy.dialects.postgresql import insert

from hpo.database.patience import with_retries
from hpo.database.schema import artifacts

# A part is 1 MiB, because a row's value is held in memory several times on its way.
_PART = 1 << 20


class DatabaseArtifacts:
    """An artifact store (optuna.artifacts) in the table `hpo.artifacts`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Return the file's content, or raise `ArtifactNotFound` if there is none."""
        statement = (
            sa.select(artifacts.c.body)
            .where(artifacts.c.artifact_id == artifact_id)
            .order_by(artifacts.c.part)
        )

        def once() -> Sequence[bytes]:
            with self._engine.connect() as connection:
                return connection.scalars(statement).all()

        parts = with_retries(once)
        if not parts:
            raise ArtifactNotFound(f"no artifact '{artifact_id}' in the database")
        return io.BytesIO(b"".join(parts))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store a file, all of it or nothing."""
        start = content_body.tell()

        def once() -> None:
            content_body.seek(start)
            with self._engine.begin() as connection:
                for part, body in enumerate(iter(lambda: content_body.read(_PART), b"")):
                    row = {"artifact_id": artifact_id, "part": part, "body": body}
                    # A retry after a lost answer finds the parts already stored.
                    connection.execute(insert(artifacts).values(row).on_conflict_do_nothing())

        with_retries(once)

    def remove(self, artifact_id: str) -> None:
        """Delete a file, or raise `ArtifactNotFound` if there is none."""
        statement = artifacts.delete().where(artifacts.c.artifact_id == artifact_id)
        with self._engine.begin() as connection:
            if connection.execute(statement).rowcount == 0:
                raise ArtifactNotFound(f"no artifact '{artifact_id}' in the database")
