"""Our own tables, in the PostgreSQL schema `hpo`, versioned; who uses them is `budget`, `records`.

Keys are the study's uid (an attribute of the study: renaming one in the dashboard re-creates its
trials under new ids), the ticket 1…N and the attempt; `run_uid` is one attempt. Time is the
database's clock.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON, JSONB, UUID

SCHEMA_VERSION = 4
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
    # The trial whose configuration the ticket's present one repeats in a wider precision.
    sa.Column("rerun_of", sa.Integer),
    # What the ticket's trial is to try, whole or in part; NULL leaves it to the sampler.
    sa.Column("params", JSONB),
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
    sa.Column("step", sa.Integer),
    sa.Column("steps", sa.Integer),
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

# What the networks made of some validation samples. By trial and step: what a later attempt repeats
# takes the place of what an earlier one left.
predictions = sa.Table(
    "predictions",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("trial_number", sa.Integer, primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("sample", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("run_uid", UUID(as_uuid=False), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    # JSON, which keeps the order of names as JSONB does not.
    sa.Column("input", JSON(none_as_null=True)),
    sa.Column("target", JSON(none_as_null=True)),
    sa.Column("prediction", JSON(none_as_null=True)),
    sa.Column("score", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("latency_s", sa.Float, nullable=False),
    # When it was made, by which old ones are found.
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), index=True),
)

environments = sa.Table(
    "environments",
    OWN,
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("details", JSONB, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
)

# One row a diverged trial; the trial's number, for an attempt that was cut off is not known by any
# other name to its user.
divergences = sa.Table(
    "divergences",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("trial_number", sa.Integer, primary_key=True),
    sa.Column("ticket", sa.Integer, nullable=False),
    sa.Column("run_uid", UUID(as_uuid=False), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("precision", sa.Text, nullable=False),
    sa.Column("term", sa.Text),
    sa.Column("parameter", sa.Text),
    sa.Column("operation", sa.Text),
    sa.Column("evidence", JSONB, nullable=False),
    sa.Column("artifact_id", sa.Text),
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
)

# Files of trials, in parts: a value of one row is held in memory several times on its way.
artifacts = sa.Table(
    "artifacts",
    OWN,
    sa.Column("artifact_id", sa.Text, primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)


def schema_version(engine: sa.Engine) -> int | None:
    """The version of our own tables in the database; None where there are none."""
    with engine.connect() as connection:
        if connection.scalar(sa.text("SELECT to_regclass('hpo.schema_version')")) is None:
            return None
        version: int | None = connection.scalar(sa.select(version_table.c.version))
        return version
