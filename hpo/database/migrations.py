"""Create the tables in a database, or bring earlier ones to this version."""

from __future__ import annotations

import sqlalchemy as sa
from optuna.storages import RDBStorage

from hpo.database.connection import (
    engine_kwargs,
    locked,
)
from hpo.database.schema import (
    OWN,
    SCHEMA_VERSION,
    schema_version,
    version_table,
)
from hpo.errors import StorageError

# Leases that beat within a lease's life (leases.LEASE_S), in any version of the tables.
_WORKING = "SELECT count(*) FROM hpo.leases WHERE beat_at > now() - interval '90 s'"


def create_tables(engine: sa.Engine) -> None:
    """Create Optuna's tables and ours, once, however many processes ask at the same time.

    Tables of an earlier version are brought to this one; what they hold stays. A role without the
    right to create tables passes when everything exists already.

    Raises:
        StorageError: The tables belong to a later version of this program.
    """
    if schema_version(engine) == SCHEMA_VERSION:
        return
    # Opened by 12 processes at once, an empty database fails in 11 of them without a lock.
    with locked(engine, "hpo schema"):
        found = schema_version(engine)
        if found == SCHEMA_VERSION:
            return
        if found is not None and found > SCHEMA_VERSION:
            raise StorageError(
                f"the tables in schema hpo have version {found}, this program knows "
                f"{SCHEMA_VERSION}; use the version of hpo that created them, or a later one"
            )
        url = engine.url.render_as_string(hide_password=False)
        RDBStorage(url, engine_kwargs=engine_kwargs("prepare")).engine.dispose()
        with engine.begin() as connection:
            if found is not None and connection.scalar(sa.text(_WORKING)):
                raise StorageError(
                    f"workers of an earlier version of hpo are at work in this database (its "
                    f"tables have version {found}); end their run with Ctrl-C, then repeat this "
                    "command, and both go on"
                )
            connection.execute(sa.text("CREATE SCHEMA IF NOT EXISTS hpo"))
            for version in range((found or SCHEMA_VERSION) + 1, SCHEMA_VERSION + 1):
                for statement in MIGRATIONS[version]:
                    connection.execute(sa.text(statement))
            OWN.create_all(connection)
            connection.execute(version_table.delete())
            connection.execute(version_table.insert().values(version=SCHEMA_VERSION))


# What brings the tables of an earlier version to each one; new tables are created beside it.
MIGRATIONS = {
    2: ("ALTER TABLE hpo.tickets ADD COLUMN IF NOT EXISTS rerun_of integer",),
    3: (
        "ALTER TABLE hpo.tickets ADD COLUMN IF NOT EXISTS params jsonb",
        "ALTER TABLE hpo.leases ADD COLUMN IF NOT EXISTS step integer",
        "ALTER TABLE hpo.leases ADD COLUMN IF NOT EXISTS steps integer",
    ),
    4: (),
}
