"""Limits of connections: what a run takes, what a server has, and what to write."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.database.limits import needed, room, shortage
from hpo.embedded.server import Server
from tests.support.servers import admin


@pytest.fixture
def plain(server: Server, url: str) -> Iterator[sa.Engine]:
    """The database for a role of its own, which has few rights and sees little of others."""
    name = f"r{uuid.uuid4().hex[:12]}"
    admin(server, f"CREATE ROLE {name} LOGIN PASSWORD 'secret' CONNECTION LIMIT 9")
    found = connect(sa.make_url(url).set(username=name, password="secret").render_as_string(False))
    yield found
    found.dispose()
    admin(server, f"DROP ROLE {name}")


def test_the_servers_own_limit_holds_less_what_is_reserved_and_in_use(db):
    found = room(db)

    with db.connect() as connection:
        most = connection.scalar(
            sa.text(
                "SELECT current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int"
            )
        )
    assert (found.name, found.most) == ("max_connections", most)
    assert 0 < found.used < most


def test_a_run_that_fits_has_no_remark_and_another_is_told_what_to_write(db):
    assert shortage(db, 1) is None
    free, told = 0, ""
    # Other tests come and go on this server.
    while free != room(db).free + 1:
        free = room(db).free + 1
        told = shortage(db, free)
    assert told.startswith(f"{free} workers and the run take {needed(free)} connections")
    assert "max_connections" in told
    fitting = int(told.rpartition("--workers ")[2].partition(",")[0])
    assert needed(fitting) <= free < needed(fitting + 1) + 4


def test_the_limit_of_a_role_counts_if_it_is_tighter(plain):
    found = room(plain)
    told = shortage(plain, 4)

    assert (found.name, found.most, found.used) == ("CONNECTION LIMIT of the role", 9, 1)
    assert shortage(plain, 3) is None
    assert told == (
        "4 workers and the run take 11 connections, and the database has 9 left (CONNECTION LIMIT "
        "of the role, 1 of 9 in use): workers that find none wait for one; write --workers 3, or "
        "raise CONNECTION LIMIT of the role"
    )


def test_the_limit_of_a_database_counts_if_it_is_tighter(server, url, plain):
    name = url.rsplit("/", 1)[1]
    admin(server, f"ALTER DATABASE {name} CONNECTION LIMIT 4")

    found = room(plain)

    assert (found.name, found.most) == ("CONNECTION LIMIT of the database", 4)
