"""A study's identity: the study of Optuna that a uid, and with it our rows, belongs to.

The uid is an attribute of the study, and other programs take it along. `optuna.copy_study` copies
it, so that two studies have one uid. A rename in the dashboard is a copy, then a deletion. The
table `identities` binds the uid to the original. While that one exists, any other study with its
uid is a copy, which gets a uid and tickets of its own. Once it is gone, the other one is the
renamed study.

Border: uids, tickets, and the trials that a copy took along. Configurations are left to `study`.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.dialects.postgresql import UUID, insert

from hpo.database.connection import lock
from hpo.database.patience import with_retries
from hpo.database.schema import OWN, identities

UID = "study_uid"
# These tables hold a study's rows. An identity outlives its study and is none of them.
ROWS = [t for t in OWN.sorted_tables if "study_uid" in t.c and t is not identities]
CLOSED = "was running when the study was copied"

_STUDIES: sa.Table = models.StudyModel.__table__
_ATTRIBUTES: sa.Table = models.StudyUserAttributeModel.__table__

_HAS_ENDED = "state IN ('COMPLETE', 'PRUNED', 'FAIL')"
_OUTCOME = (
    "CASE {}.state WHEN 'COMPLETE' THEN 'complete' WHEN 'PRUNED' THEN 'pruned'"
    " WHEN 'FAIL' THEN 'failed' ELSE 'open' END"
)

# A trial that ended between the copying and the deletion of a rename is RUNNING in the renamed
# study, and one that began in that time is missing there. Their tickets are open again.
_REOPEN = sa.text(f"""
UPDATE hpo.tickets t
SET state = CASE t.state WHEN 'leased' THEN 'leased' ELSE 'open' END,
    trial_number = CASE WHEN mine.state = 'RUNNING' THEN t.trial_number
                        WHEN first.state = 'RUNNING' THEN t.rerun_of END,
    rerun_of = CASE WHEN first.{_HAS_ENDED} THEN t.rerun_of END
FROM hpo.tickets o
LEFT JOIN trials mine ON mine.study_id = :study_id AND mine.number = o.trial_number
LEFT JOIN trials first ON first.study_id = :study_id AND first.number = o.rerun_of
WHERE t.study_uid = :uid AND o.study_uid = t.study_uid AND o.ticket = t.ticket
AND coalesce(o.trial_number, o.rerun_of) IS NOT NULL
AND (mine.state IS NULL OR NOT mine.{_HAS_ENDED})
""")

# A trial is the same in both studies if its start is. Another program may have added some.
_DIVIDE = sa.text(f"""
INSERT INTO hpo.tickets (study_uid, ticket, state, trial_number, rerun_of, params)
SELECT :new, t.ticket, {_OUTCOME.format("mine")},
    CASE WHEN mine.{_HAS_ENDED} THEN t.trial_number END,
    CASE WHEN first.{_HAS_ENDED} THEN t.rerun_of END,
    t.params
FROM hpo.tickets t
LEFT JOIN trials original ON original.study_id = :original AND original.number = t.trial_number
LEFT JOIN trials mine ON mine.study_id = :study_id AND mine.number = t.trial_number
    AND mine.datetime_start = original.datetime_start
LEFT JOIN trials first ON first.study_id = :study_id AND first.number = t.rerun_of
WHERE t.study_uid = :uid
""")

# A copy from another database comes without tickets. Every trial of this service has a `run_uid`,
# and a rerun shares the ticket of the trial that it repeats.
_ADOPT = sa.text(f"""
INSERT INTO hpo.tickets (study_uid, ticket, state, trial_number)
SELECT :uid, row_number() OVER (ORDER BY number), {_OUTCOME.format("t")}, number
FROM trials t
WHERE study_id = :study_id AND {_HAS_ENDED}
AND EXISTS (SELECT FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'run_uid')
AND NOT EXISTS (
    SELECT FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'rerun_of'
)
""")

_CLOSE = sa.text("""
WITH closed AS (
    UPDATE trials SET state = 'FAIL', datetime_complete = timezone('UTC', now())
    WHERE study_id = :study_id AND state = 'RUNNING' RETURNING trial_id
)
INSERT INTO trial_user_attributes (trial_id, key, value_json)
SELECT trial_id, name, text
FROM closed, (VALUES ('prune_reason', '"-"'), ('prune_detail', :detail)) AS why (name, text)
ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
""")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A study of Optuna and the uid of its rows.

    Attributes:
        is_bound: Whether the table `identities` says so; else it is to be bound.
        copy_of: Name of the original, if this call made a copy a study of its own.
    """

    uid: str
    study_id: int
    name: str
    is_bound: bool = True
    copy_of: str | None = None


def original(engine: sa.Engine, uid: str) -> Identity | None:
    """The study that a uid belongs to, without a change; None if no study has it any more."""

    def once() -> Identity | None:
        with engine.connect() as connection:
            return _original(connection, uid)

    return with_retries(once)


def _original(connection: sa.Connection, uid: str) -> Identity | None:
    """The bound study if it exists, else the first one that has the uid."""
    is_bound = identities.c.study_uid.is_not(None)
    having = sa.select(_ATTRIBUTES.c.study_id).where(
        _ATTRIBUTES.c.key == UID, _ATTRIBUTES.c.value_json == json.dumps(uid)
    )
    here = (identities.c.study_id == _STUDIES.c.study_id) & (identities.c.study_uid == uid)
    statement = (
        sa.select(_STUDIES.c.study_id, _STUDIES.c.study_name.label("name"), is_bound)
        .select_from(_STUDIES.outerjoin(identities, here))
        .where(is_bound | _STUDIES.c.study_id.in_(having))
        .order_by(is_bound.desc(), _STUDIES.c.study_id)
    )
    row = connection.execute(statement.limit(1)).one_or_none()
    return None if row is None else Identity(uid=uid, study_id=row[0], name=row[1], is_bound=row[2])


def resolve(engine: sa.Engine, uid: str, study_id: int | None = None) -> Identity | None:
    """Bind a uid to its study, and divide a copy from its original; None if the study is gone.

    Everything happens in one transaction, under a lock, and a repetition changes nothing.

    Args:
        study_id: The study that is asked for; None for the one that the uid belongs to.
    """

    def once() -> Identity | None:
        with engine.begin() as connection:
            lock(connection, f"hpo identity {uid}")
            found = _original(connection, uid)
            if found is None:
                return None
            _bind(connection, found)
            if study_id in (None, found.study_id):
                return found
            return _divide(connection, found, study_id)

    return with_retries(once)


def _bind(connection: sa.Connection, found: Identity) -> None:
    """Store that a uid belongs to this study; open the tickets that do not fit it."""
    row = {"study_uid": found.uid, "study_id": found.study_id, "name": found.name}
    before = connection.scalar(
        sa.select(identities.c.study_id).where(identities.c.study_uid == found.uid)
    )
    changed = {name: row[name] for name in ("study_id", "name")}
    connection.execute(
        insert(identities)
        .values(row)
        .on_conflict_do_update(index_elements=["study_uid"], set_=changed)
    )
    if before == found.study_id:
        return
    values = {"uid": found.uid, "study_id": found.study_id}
    if before is None and not connection.scalar(
        sa.text("SELECT EXISTS (SELECT FROM hpo.tickets WHERE study_uid = :uid)"), values
    ):
        connection.execute(_ADOPT, values)
        _close(connection, found.study_id)
    else:
        connection.execute(_REOPEN, values)


def _divide(connection: sa.Connection, found: Identity, study_id: int) -> Identity | None:
    """Give a copy a uid and tickets of its own; end the trials that run in the original alone."""
    of_study = (_ATTRIBUTES.c.study_id == study_id, _ATTRIBUTES.c.key == UID)
    name = connection.scalar(
        sa.select(_STUDIES.c.study_name).where(_STUDIES.c.study_id == study_id)
    )
    text = connection.scalar(sa.select(_ATTRIBUTES.c.value_json).where(*of_study))
    if name is None or text is None:
        return None
    if (given := json.loads(text)) != found.uid:
        # Another process has divided it since the caller read its uid.
        return Identity(uid=given, study_id=study_id, name=name)
    new = str(uuid.uuid4())
    values = {"uid": found.uid, "new": new, "original": found.study_id, "study_id": study_id}
    connection.execute(_DIVIDE, values)
    _close(connection, study_id)
    connection.execute(_ATTRIBUTES.update().where(*of_study).values(value_json=json.dumps(new)))
    connection.execute(identities.insert().values(study_uid=new, study_id=study_id, name=name))
    return Identity(uid=new, study_id=study_id, name=name, copy_of=found.name)


def living() -> sa.Select[Any]:
    """The uids that the studies of a database have, in the form of the column `study_uid`."""
    text = sa.func.trim(_ATTRIBUTES.c.value_json, '"')
    canonical = text.regexp_match("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    # Another program's attribute of this name may hold any text.
    uid = sa.case((canonical, sa.cast(text, UUID(as_uuid=False))))
    return sa.select(uid).where(_ATTRIBUTES.c.key == UID, canonical)


def gone(name: str) -> sa.Select[Any]:
    """The studies that had this name and are gone, with rows of ours left; oldest first."""
    uid = identities.c.study_uid
    left = (sa.exists().where(table.c.study_uid == uid) for table in ROWS)
    return (
        sa.select(identities.c.study_id, uid.label("uid"))
        .where(identities.c.name == name, uid.not_in(living()), sa.or_(*left))
        .order_by(identities.c.at)
    )


def remember(connection: sa.Connection, uid: str, *, study_id: int = 0, name: str = "") -> None:
    """Keep the uid of a study that is being deleted, by which `gc` finds its files on any host."""
    row = {"study_uid": uid, "study_id": study_id, "name": name}
    connection.execute(insert(identities).values(row).on_conflict_do_nothing())


def _close(connection: sa.Connection, study_id: int) -> None:
    """End the trials that a copy shows as running, because no worker trains them."""
    connection.execute(_CLOSE, {"study_id": study_id, "detail": json.dumps(CLOSED)})
