"""Our own tables, versioned, in the PostgreSQL schema `hpo`.

Keys are the study's uid, the ticket 1…N and the attempt; `run_uid` identifies one attempt. The uid
is an attribute of the study, because renaming a study in the dashboard re-creates its trials under
new ids. All times are of the database's clock. Border: definitions alone. Rows are written by
`records`, `artifacts`, `checkpoints`, `retention` and the package `tickets`.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON, JSONB, UUID

SCHEMA_VERSION = 7
# The schedulers that were tried noticed a partitioned host only after 56 s. A lease must outlive
# the outage that a trial waits out (45 s) and a beat or two (5 s each).
LEASE_S = 90.0
OWN = sa.MetaData(schema="hpo")
version_table = sa.Table("schema_version", OWN, sa.Column("version", sa.Integer, primary_key=True))

# The study of Optuna that a uid belongs to. A copy that Optuna makes has the same uid in its
# attributes; this row tells which of the two is the original. It outlives its study, so that each
# host can find the files of a study that is gone. No table here has a name of Optuna's: a role
# called `hpo`, as the embedded server's, finds this schema first.
identities = sa.Table(
    "identities",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
    # The function `free_number` looks at trials after this one alone.
    sa.Column("last_trial_id", sa.Integer),
    sa.Column("next_number", sa.Integer),
)

tickets = sa.Table(
    "tickets",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("ticket", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False, server_default="open"),
    sa.Column("trial_number", sa.Integer),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    # These count the workers lost in a row without a newer checkpoint: those that the trial may
    # have ended, and those that ended from outside or fell silent.
    sa.Column("losses", sa.Integer, nullable=False, server_default="0"),
    sa.Column("silences", sa.Integer, nullable=False, server_default="0"),
    # The step of the newest checkpoint at the last loss, and the last loss in words. Where workers
    # copy checkpoints for other hosts, it is the step of the newest copy.
    sa.Column("saved_step", sa.Integer, nullable=False, server_default="0"),
    sa.Column("cause", sa.Text),
    # The ticket's current trial repeats this one's configuration in a wider precision.
    sa.Column("rerun_of", sa.Integer),
    # The trial takes these parameters; the sampler chooses the others, and all if it is NULL.
    sa.Column("params", JSONB),
    # The number of the trial that an operator has cancelled; the ticket's next one has another.
    sa.Column("cancelled", sa.Integer),
    sa.CheckConstraint("state IN ('open', 'leased', 'complete', 'pruned', 'failed')"),
    # Among 100,000 tickets of which 10 are open, the lowest open one is found in 0.1 ms by this
    # index, and in 22 ms without it.
    sa.Index("open_tickets", "study_uid", "ticket", postgresql_where=sa.text("state = 'open'")),
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
    # The step of the newest checkpoint, or of its newest copy for other hosts, the current phase of
    # the training, and the time since the last step or phase began, in s.
    sa.Column("saved_step", sa.Integer),
    sa.Column("phase", sa.Text),
    sa.Column("phase_s", sa.Float),
    # GPUs that its slot takes: 1, a share of one, or 0 on a CPU.
    sa.Column("gpus", sa.Float, nullable=False, server_default="0"),
    # The median time of the latest steps, in s, and the GPU memory that the trainer holds.
    sa.Column("step_s", sa.Float),
    sa.Column("gpu_bytes", sa.BigInteger),
    sa.UniqueConstraint("study_uid", "ticket"),
    sa.ForeignKeyConstraint(
        ["study_uid", "ticket"], ["hpo.tickets.study_uid", "hpo.tickets.ticket"]
    ),
)

# What a study may cost and has cost, by ended leases; see `spending`. The times are those before
# `counted_until`, and the spans below are not in them yet.
spending = sa.Table(
    "spending",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("max_hours", sa.Float),
    sa.Column("max_gpu_hours", sa.Float),
    sa.Column("busy_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("gpu_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("lost", sa.Integer, nullable=False, server_default="0"),
    sa.Column("counted_until", sa.DateTime(timezone=True)),
)

# The lives of leases that have ended, until they are added to the sums in `spending`. A row for
# each, so that trials which end at the same time do not wait for one row of their study.
spans = sa.Table(
    "spans",
    OWN,
    sa.Column("run_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("study_uid", UUID(as_uuid=False), nullable=False, index=True),
    sa.Column("began", sa.DateTime(timezone=True), nullable=False),
    sa.Column("ended", sa.DateTime(timezone=True), nullable=False),
    sa.Column("gpus", sa.Float, nullable=False),
    sa.Column("lost", sa.Integer, nullable=False),
)

# A worker's row, idle or not, from its start to its end; that of a lost one goes after a lease's
# time. The version of its code is a mapping of names to hashes and versions.
workers = sa.Table(
    "workers",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("slot", sa.Text, primary_key=True),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("launcher", sa.Text, nullable=False),
    sa.Column("gpu", sa.Text),
    sa.Column("log", sa.Text),
    sa.Column("version", JSONB, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
    sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
    # It is asked to leave after its trial, and has left.
    sa.Column("is_drained", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("left_at", sa.DateTime(timezone=True)),
)

# The last worker to start on each host, as `doctor --fleet` compares them.
hosts = sa.Table(
    "hosts",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("facts", JSONB, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
)

# What holds for all workers of a study: the version of their code, and a pause.
controls = sa.Table(
    "controls",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("version", JSONB),
    sa.Column("paused_at", sa.DateTime(timezone=True)),
    sa.Column("paused_by", sa.Text),
    # Running trials are given back at once, too.
    sa.Column("gives_back", sa.Boolean, nullable=False, server_default=sa.false()),
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

# The key is trial and step, not the attempt, so that a later attempt replaces the rows of the steps
# that it repeats.
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
    # JSON keeps the order of names; JSONB does not.
    sa.Column("input", JSON(none_as_null=True)),
    sa.Column("target", JSON(none_as_null=True)),
    sa.Column("prediction", JSON(none_as_null=True)),
    sa.Column("score", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("latency_s", sa.Float, nullable=False),
    # `retention` finds old rows by this index.
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

# A diverged trial has one row. Its key is the trial's number, because a user knows an attempt that
# was cut off by no other name.
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

# A file is stored in parts, because a row's value is held in memory several times on its way.
artifacts = sa.Table(
    "artifacts",
    OWN,
    sa.Column("artifact_id", sa.Text, primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    # `gc` spares a file that no trial refers to yet, because it has just been uploaded.
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
)

# Copies of checkpoints, from which a trial goes on where another host's files are out of reach.
# Each part repeats what is said of the whole file: its number of parts, its size and checksum, and
# the step that it was written after.
checkpoints = sa.Table(
    "checkpoints",
    OWN,
    sa.Column("study_uid", UUID(as_uuid=False), primary_key=True),
    sa.Column("trial_number", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
)
