"""Outages and refusals, as a real server makes them, however deep Optuna wraps them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import optuna
import psycopg2
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError

from hpo.cli import _explained
from hpo.database.connection import connect
from hpo.database.faults import fault, is_outage, reason
from hpo.database.storage import open_storage
from hpo.embedded.server import Server
from hpo.errors import LeaseLost, StorageError
from tests.support.servers import admin, leave


def raised(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def terminate(server: Server, url: str) -> None:
    leave(server, url.rsplit("/", 1)[1])


@pytest.fixture
def guest(server: Server, url: str) -> Iterator[str]:
    """The URL of a role that may have one connection."""
    admin(server, "CREATE ROLE guest_one LOGIN PASSWORD 'p' CONNECTION LIMIT 1")
    yield sa.make_url(url).set(username="guest_one", password="p").render_as_string(False)
    admin(server, "DROP ROLE guest_one")


@pytest.mark.parametrize("is_optunas", [True, False])
def test_a_connection_that_breaks_in_a_read_is_an_outage(server, url, is_optunas):
    engine = connect(url)
    storage = open_storage(engine)
    study = optuna.create_study(storage=storage)
    study.add_trial(optuna.trial.create_trial(value=0.0))
    fresh = open_storage(engine)

    statements: list[object] = []

    def cut(*_: object) -> None:
        statements.append(None)
        if len(statements) == 2:
            terminate(server, url)

    # The second statement of the read finds its connection closed, in the middle of a transaction.
    sa.event.listen(engine, "before_cursor_execute", cut)
    read = RDBStorage._get_trials if is_optunas else type(fresh._backend)._get_trials
    error = raised(lambda: read(fresh._backend, study._study_id, None, set(), -1))

    # Optuna's own read hides the outage behind another explanation.
    assert ("exceeding max length" in str(error)) == is_optunas
    assert is_outage(error)
    # The server's last word arrives, or the end of the connection before it.
    assert re.search("terminating connection|server closed the connection", reason(error))
    assert len(fresh.get_all_trials(study._study_id)) == 1


def test_a_server_that_takes_no_writes_is_an_outage_and_its_connections_are_left(url):
    engine = connect(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION default_transaction_read_only = on")
        connection.commit()

    def write() -> int:
        with engine.begin() as connection:
            return connection.exec_driver_sql("DELETE FROM hpo.leases").rowcount

    error = raised(write)

    assert is_outage(error)
    assert fault(error).what == "the database is read-only"
    assert _explained(error).startswith("the database is read-only: cannot execute DELETE")
    # A new connection, which the setting of the old one does not concern.
    assert write() == 0


def test_a_server_without_a_free_connection_is_waited_for(guest):
    held = connect(guest).connect()

    error = raised(lambda: connect(guest))

    assert isinstance(error, StorageError)
    assert is_outage(error)
    assert fault(error).what == "the database has no free connection"
    held.close()


def test_a_lock_of_another_session_is_waited_for_a_few_seconds_at_a_time(url):
    engine = connect(url)
    with engine.begin() as other, engine.connect() as connection:
        other.exec_driver_sql("LOCK TABLE trial_values IN ACCESS EXCLUSIVE MODE")
        connection.exec_driver_sql("SET LOCAL lock_timeout = '10ms'")
        error = raised(lambda: connection.exec_driver_sql("SELECT * FROM trial_values"))

    assert is_outage(error)
    assert fault(error).what == "another session holds a lock on the tables"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"database": "no_such_database"}, "does not exist"),
        ({"username": "no_such_role"}, "password authentication failed"),
    ],
)
def test_a_login_that_is_refused_is_no_outage(url, change, says):
    error = raised(lambda: connect(sa.make_url(url).set(**change).render_as_string(False)))

    assert says in str(error)
    assert not is_outage(error)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        *((state, True) for state in ("08006", "40001", "40P01", "53100", "53200", "57P01")),
        *((state, True) for state in ("58030", "25006", "55P03")),
        *((state, False) for state in ("23505", "42501", "22001", "57014", "XX000")),
    ],
)
def test_the_sqlstate_says_what_is_an_outage(url, state, expected):
    block = f"DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '{state}'; END $$"
    with connect(url).connect() as connection:
        error = raised(lambda: connection.exec_driver_sql(block))

    assert is_outage(error) == expected
    assert reason(error) == "as told"


def test_a_full_disk_of_the_server_is_said_to_be_one(url):
    block = "DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '53100'; END $$"
    with connect(url).connect() as connection:
        error = raised(lambda: connection.exec_driver_sql(block))

    assert _explained(error) == (
        "the database's disk is full: as told; make room, and the same command goes on"
    )


def test_a_statement_that_is_wrong_is_no_outage(url):
    with connect(url).connect() as connection:
        error = raised(lambda: connection.exec_driver_sql("SELECT nonsense"))

    assert isinstance(error, DBAPIError)
    assert not is_outage(error)
    assert _explained(error).startswith("the database refuses: column")


def test_a_lease_that_was_lost_in_an_outage_is_lost():
    try:
        raise psycopg2.OperationalError("server closed the connection unexpectedly")
    except psycopg2.OperationalError:
        error = raised(lambda: (_ for _ in ()).throw(LeaseLost("gone")))

    assert not is_outage(error)
