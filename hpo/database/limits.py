"""Limits of a server's connections, and poolers before it.

Border: reads and words; who needs connections decides what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from hpo.database.connection import CONNECTIONS

# A worker trains by one and renews its lease by the other; an idle one listens on one of them.
WORKER_CONNECTIONS = 2

# A role sees of others' sessions neither kind nor name, but everyone may read the numbers of a
# database. The limits of role and database do not hold for superusers.
_ROOM = sa.text("""
SELECT 'max_connections' AS name, current_setting('max_connections')::int AS most,
current_setting('superuser_reserved_connections')::int
    + coalesce(current_setting('reserved_connections', true), '0')::int AS reserved,
(SELECT sum(numbackends) FROM pg_stat_database)::int AS used
UNION ALL
SELECT 'CONNECTION LIMIT of the role', rolconnlimit, 0,
(SELECT count(*) FROM pg_stat_activity WHERE usename = rolname)::int
FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0 AND NOT rolsuper
UNION ALL
SELECT 'CONNECTION LIMIT of the database', datconnlimit, 0, numbackends
FROM pg_database JOIN pg_stat_database s ON s.datid = pg_database.oid
WHERE pg_database.datname = current_database() AND datconnlimit >= 0
AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
""")


@dataclass(frozen=True, kw_only=True)
class Room:
    """The tightest of the limits that hold for a session.

    Attributes:
        name: The setting that an owner would change.
        most: Connections that it allows, apart from those that are reserved.
        used: Connections that are in use.
    """

    name: str
    most: int
    used: int

    @property
    def free(self) -> int:
        return max(0, self.most - self.used)


def is_pooled(connection: sa.Connection) -> bool:
    """Return whether a pooler is at the other end, and not the server itself.

    A pooler gives its clients process numbers of its own, by which they would cancel a statement.
    """
    backend = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    driver = connection.connection.dbapi_connection
    return bool(driver is not None and backend != driver.get_backend_pid())


def room(engine: sa.Engine) -> Room | None:
    """The server's room for connections; None behind a pooler, which has limits of its own."""
    with engine.connect() as connection:
        if is_pooled(connection):
            return None
        rows = connection.execute(_ROOM).mappings().all()
    found = [Room(name=r["name"], most=r["most"] - r["reserved"], used=r["used"]) for r in rows]
    return min(found, key=lambda one: one.free)


def needed(workers: int) -> int:
    """The connections of a run and its workers."""
    return WORKER_CONNECTIONS * workers + CONNECTIONS


def shortage(engine: sa.Engine, workers: int) -> str | None:
    """The sentence for a run whose connections do not fit; None if they do.

    Nothing is refused: others may end at any time, and a worker waits for a connection as it waits
    for a database that is away.
    """
    found = room(engine)
    # Those that this process has open are counted as in use.
    mine = engine.pool.checkedin() + engine.pool.checkedout()  # type: ignore[attr-defined]
    if found is None or needed(workers) <= found.free + mine:
        return None
    fitting = max(1, (found.free + mine - CONNECTIONS) // WORKER_CONNECTIONS)
    return (
        f"{workers} worker{'s' * (workers > 1)} and the run take {needed(workers)} connections, "
        f"and the database has {found.free + mine} left ({found.name}, {found.used} of "
        f"{found.most} in use): workers that find none wait for one; write --workers {fitting}, "
        f"or raise {found.name}"
    )
