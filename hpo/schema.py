"""Our own tables, in the PostgreSQL schema `hpo`, versioned; who uses them is `budget`, `records`.

Keys are the study's uid (an attribute of the study: renaming one in the dashboard re-creates its
trials under new ids), the ticket 1…N and the attempt; `run_uid` is one attempt. Time is the
database's clock.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

SCHEMA_VERSION = 1
OWN = sa.MetaData(schema="hpo")
version_table = sa.Table("schema_version", OWN, sa.Column("version", sa.Integer, primary_key=True))

tickets = sa.Table(
    "tickets",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("ticket", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False, server_default="open"),
    sa.Column("trial_number", sa.Integer),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("losses", sa.Integer, nullable=False, server_default="0"),
    sa.CheckConstraint("state IN ('open', 'leased', 'complete', 'pruned', 'failed')"),
)

leases = sa.Table(
    "leases",
    OWN,
    sa.Column("run_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("study_uid", UUID(as_uuid=False), nullable=False),
    sa.Column("ticket", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("process", sa.Text, nullable=False),
    sa.Column("slot", sa.Text, nullable=False),
    sa.Column("taken_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
    sa.Column("beat_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
    sa.Column("epoch", sa.Integer),
    sa.Column("epochs", sa.Integer),
    sa.Column("value", sa.Float),
    sa.UniqueConstraint("study_uid", "ticket"),
    sa.ForeignKeyConstraint(
        ["study_uid", "ticket"], ["hpo.tickets.study_uid", "hpo.tickets.ticket"]
    ),
)

metrics = sa.Table(
    "metrics",
    OWN,
    sa.Column("run_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("study_uid", UUID(as_uuid=False), nullable=False, index=True),
    sa.Column("ticket", sa.Integer, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("values", JSONB, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
)

environments = sa.Table(
    "environments",
    OWN,
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("details", JSONB, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
)


def schema_version(engine: sa.Engine) -> int | None:
    """The version of our own tables in the database; None where there are none."""
    with engine.connect() as connection:
        if connection.scalar(sa.text("SELECT to_regclass('hpo.schema_version')")) is None:
            return None
        version: int | None = connection.scalar(sa.select(version_table.c.version))
        return version
