"""Create the tables in a database, or bring those of an earlier version to this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _VersionManager
from sqlalchemy import orm

from hpo.database.connection import locked
from hpo.database.functions import FUNCTIONS
from hpo.database.patience import with_retries
from hpo.database.preconditions import Found, foreign, look, missing_right
from hpo.database.reading import READING
from hpo.database.removal import REMOVAL
from hpo.database.rights import hand_on
from hpo.database.schema import LEASE_S, OWN, SCHEMA_VERSION, version_table
from hpo.database.spending import SPENDING
from hpo.database.triggers import TRIGGERS
from hpo.errors import StorageError

# The first version that was released.
FLOOR = 4
# Statements that bring the tables from the version before to each later one. New tables need none.
MIGRATIONS: Mapping[int, Sequence[str]] = {
    5: (
        "ALTER TABLE hpo.tickets ADD COLUMN silences integer NOT NULL DEFAULT 0,"
        " ADD COLUMN saved_step integer NOT NULL DEFAULT 0, ADD COLUMN cause text",
        "ALTER TABLE hpo.leases ADD COLUMN saved_step integer, ADD COLUMN phase text,"
        " ADD COLUMN phase_s double precision",
        # A default that is no constant would rewrite the table; artifacts of before have no time.
        "ALTER TABLE hpo.artifacts ADD COLUMN at timestamptz",
        "ALTER TABLE hpo.artifacts ALTER COLUMN at SET DEFAULT now()",
        # Five losses were allowed before; two in a row without progress are now.
        "UPDATE hpo.tickets SET losses = 0 WHERE state IN ('open', 'leased')",
    ),
    6: (
        # Version 4 has no such table; it is created with these columns.
        "ALTER TABLE IF EXISTS hpo.identities ADD COLUMN last_trial_id integer,"
        " ADD COLUMN next_number integer",
        "CREATE INDEX open_tickets ON hpo.tickets (study_uid, ticket) WHERE state = 'open'",
    ),
    7: (
        "ALTER TABLE hpo.leases ADD COLUMN gpus double precision NOT NULL DEFAULT '0',"
        " ADD COLUMN step_s double precision, ADD COLUMN gpu_bytes bigint",
        "ALTER TABLE hpo.tickets ADD COLUMN cancelled integer",
    ),
}

_WORKING = "SELECT count(*) FROM hpo.leases WHERE beat_at > now() - make_interval(secs => :life)"


def create_tables(engine: sa.Engine) -> None:
    """Create Optuna's tables and ours, once, however many processes call this at the same time.

    Tables of an earlier version are brought to this one, and keep what they hold. A role without
    the right to create tables passes when everything exists already.

    Raises:
        StorageError: The tables belong to another version, which cannot be brought to this one;
            the database is another program's; or a right is missing. Nothing was changed.
    """
    if is_complete(with_retries(lambda: look(engine))):
        return
    # Each of its steps is safe to repeat.
    with_retries(lambda: _create(engine))


def _create(engine: sa.Engine) -> None:
    # Opened by 12 processes at once, an empty database fails in 11 of them without a lock.
    with locked(engine, "hpo schema"):
        found = look(engine)
        if is_complete(found):
            return
        _refuse(found)
        models.BaseModel.metadata.create_all(engine)
        # It stamps its tables with their version.
        url = engine.url.render_as_string(hide_password=False)
        _VersionManager(url, engine, orm.scoped_session(orm.sessionmaker(bind=engine)))
        with engine.begin() as connection:
            if not found.has_own_schema:
                connection.execute(sa.text("CREATE SCHEMA hpo"))
            _bring_along(connection, found.version)


def is_complete(found: Found) -> bool:
    """Whether all tables are there, as this program and this version of Optuna make them."""
    return found.version == SCHEMA_VERSION and found.is_optunas


def _bring_along(connection: sa.Connection, version: int | None) -> None:
    """Create our own tables, or bring those of an earlier version to this one."""
    if version is not None and connection.scalar(sa.text(_WORKING), {"life": LEASE_S}):
        raise StorageError(
            f"workers of an earlier version of hpo are at work in this database (its "
            f"tables have version {version}); end their run with Ctrl-C, then repeat this "
            "command, and both go on"
        )
    for later in range((version or SCHEMA_VERSION) + 1, SCHEMA_VERSION + 1):
        for statement in MIGRATIONS.get(later, ()):
            connection.execute(sa.text(statement))
    OWN.create_all(connection)
    # Without parameters a percent sign stands for itself.
    plain = connection.execution_options(no_parameters=True)
    for statement in (*SPENDING, *REMOVAL, *FUNCTIONS, *READING, *TRIGGERS):
        plain.exec_driver_sql(statement)
    hand_on(connection)
    connection.execute(version_table.delete())
    connection.execute(version_table.insert().values(version=SCHEMA_VERSION))


def _refuse(found: Found) -> None:
    """Refuse a database in which tables cannot be created, or brought to this version."""
    version = found.version
    if version is not None and version > SCHEMA_VERSION:
        raise StorageError(
            f"the tables in schema hpo have version {version}, this program knows "
            f"{SCHEMA_VERSION}; use the version of hpo that created them, or a later one"
        )
    if version is not None and version < FLOOR:
        raise StorageError(
            f"the tables in schema hpo have version {version}, of before the first release "
            f"(version {FLOOR}); name another database, or drop its schema hpo"
        )
    wrong = foreign(found)
    if wrong is not None:
        raise StorageError("; ".join(wrong))
    lacking = missing_right(found)
    if lacking is not None:
        raise StorageError(
            f"{lacking[0]}, so nothing was created; as its owner write: {lacking[1]}"
        )
