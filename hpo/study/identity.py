"""A study's identity: the study of Optuna that a uid, and with it our rows, belongs to.

The uid is an attribute of the study, and other programs take it along. `optuna.copy_study` copies
it, so that two studies have one uid. A rename in the dashboard is a copy, then a deletion. The
table `identities` binds the uid to the original. While that one exists, any other study with its
uid is a copy, which gets a uid and tickets of its own. Once it is gone, the other one is the
renamed study.

Border: the binding alone. `inheritance` gives tickets and records to copies and renamed studies,
`study` reads their configurations.
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
from hpo.database.schema import identities, tickets
from hpo.database.trial_writer import autocommit
from hpo.study import inheritance
from hpo.study.inheritance import ROWS

UID = "study_uid"

# Optuna's tables of studies, of trials, and of the users' attributes of studies.
STUDIES: sa.Table = models.StudyModel.__table__
TRIALS: sa.Table = models.TrialModel.__table__
ATTRIBUTES: sa.Table = models.StudyUserAttributeModel.__table__


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
    """The bound study if it exists, else one that has the uid.

    If the bound study is gone, it was renamed, and of several that is the one with the most trials,
    because it may have older copies; among equals it is the newest. If none was ever bound, it is
    the oldest.
    """
    is_bound = identities.c.study_uid.is_not(None)
    lives = sa.exists().where(STUDIES.c.study_id == identities.c.study_id)
    was_bound = sa.exists().where(identities.c.study_uid == uid, ~lives)
    size = sa.select(-sa.func.count()).where(TRIALS.c.study_id == STUDIES.c.study_id)
    here = (identities.c.study_id == STUDIES.c.study_id) & (identities.c.study_uid == uid)
    statement = (
        sa.select(STUDIES.c.study_id, STUDIES.c.study_name.label("name"), is_bound)
        .select_from(STUDIES.outerjoin(identities, here))
        .where(is_bound | STUDIES.c.study_id.in_(_having(uid)))
        .order_by(
            is_bound.desc(),
            sa.case((was_bound, size.scalar_subquery()), else_=0),
            sa.case((was_bound, -STUDIES.c.study_id), else_=STUDIES.c.study_id),
        )
    )
    row = connection.execute(statement.limit(1)).one_or_none()
    return None if row is None else Identity(uid=uid, study_id=row[0], name=row[1], is_bound=row[2])


_READ = sa.text("""
    SELECT s.study_id, s.study_name, a.value_json FROM hpo.identities i
    JOIN studies s ON s.study_id = i.study_id
    JOIN study_user_attributes a ON a.study_id = s.study_id AND a.key = :key
    WHERE i.study_uid = :uid
""")


def bound(engine: sa.Engine, uid: str, key: str) -> tuple[int, str, Any] | None:
    """Id and name of the study that a uid is bound to, and one of its attributes, in one statement.

    None if it is not bound, was renamed or deleted, or lacks the attribute.
    """

    def once() -> tuple[int, str, Any] | None:
        with autocommit(engine) as connection:
            row = connection.execute(_READ, {"uid": uid, "key": key}).one_or_none()
        return None if row is None else (row[0], row[1], json.loads(row[2]))

    return with_retries(once)


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


def give(engine: sa.Engine, study_id: int, uid: str) -> str:
    """Give a new study a uid and bind it; return another process's, if that was first."""
    row = {"study_id": study_id, "key": UID, "value_json": json.dumps(uid)}

    def once() -> str:
        with engine.begin() as connection:
            connection.execute(insert(ATTRIBUTES).values(row).on_conflict_do_nothing())
            mine = (ATTRIBUTES.c.study_id == study_id, ATTRIBUTES.c.key == UID)
            found = connection.execute(sa.select(ATTRIBUTES.c.value_json).where(*mine))
            return str(json.loads(found.scalar_one()))

    given = with_retries(once)
    resolve(engine, given, study_id)
    return given


def _bind(connection: sa.Connection, found: Identity) -> None:
    """Store that a uid belongs to this study; open the tickets that do not fit it."""
    row = {"study_uid": found.uid, "study_id": found.study_id, "name": found.name}
    before = connection.execute(
        sa.select(identities.c.study_id, identities.c.name).where(
            identities.c.study_uid == found.uid
        )
    ).one_or_none()
    if before == (found.study_id, found.name):
        return
    # The trials of a copy that takes its original's place may have earlier ids.
    changed = {**row, "last_trial_id": None, "next_number": None}
    connection.execute(
        insert(identities)
        .values(row)
        .on_conflict_do_update(index_elements=["study_uid"], set_=changed)
    )
    if found.is_bound:
        return
    if before is None and not connection.scalar(
        sa.select(sa.exists().where(tickets.c.study_uid == found.uid))
    ):
        inheritance.adopt(connection, found.uid, found.study_id)
    else:
        inheritance.reopen(connection, found.uid, found.study_id)


def _divide(connection: sa.Connection, found: Identity, study_id: int) -> Identity | None:
    """Give a copy a uid and tickets of its own; end the trials that run in the original alone."""
    of_study = (ATTRIBUTES.c.study_id == study_id, ATTRIBUTES.c.key == UID)
    name = connection.scalar(sa.select(STUDIES.c.study_name).where(STUDIES.c.study_id == study_id))
    text = connection.scalar(sa.select(ATTRIBUTES.c.value_json).where(*of_study))
    if name is None or text is None:
        return None
    if (given := json.loads(text)) != found.uid:
        # Another process has divided it since the caller read its uid.
        return Identity(uid=given, study_id=study_id, name=name)
    new = str(uuid.uuid4())
    inheritance.divide(connection, found.uid, new, original_id=found.study_id, study_id=study_id)
    connection.execute(ATTRIBUTES.update().where(*of_study).values(value_json=json.dumps(new)))
    connection.execute(identities.insert().values(study_uid=new, study_id=study_id, name=name))
    return Identity(uid=new, study_id=study_id, name=name, copy_of=found.name)


def divide_all(engine: sa.Engine, uid: str) -> None:
    """Make every copy with a study's uid a study of its own."""

    def once() -> list[int]:
        with engine.connect() as connection:
            return list(connection.scalars(_having(uid)))

    for study_id in with_retries(once):
        resolve(engine, uid, study_id)


def _having(uid: str) -> sa.Select[Any]:
    """The studies with a uid: the original and its copies."""
    return sa.select(ATTRIBUTES.c.study_id).where(
        ATTRIBUTES.c.key == UID, ATTRIBUTES.c.value_json == json.dumps(uid)
    )


def living() -> sa.Select[Any]:
    """The uids that the studies of a database have, in the form of the column `study_uid`."""
    text = sa.func.trim(ATTRIBUTES.c.value_json, '"')
    canonical = text.regexp_match("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    # Another program's attribute of this name may hold any text.
    uid = sa.case((canonical, sa.cast(text, UUID(as_uuid=False))))
    return sa.select(uid).where(ATTRIBUTES.c.key == UID, canonical)


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
