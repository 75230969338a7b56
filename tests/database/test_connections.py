"""Connections: what the URL says reaches the server, few of them, dead hosts left in time."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from psycopg2 import extensions

from hpo.database import connection as connection_module
from hpo.database import waiting
from hpo.database.connection import alone, connect, lock, locked
from hpo.database.storage import open_storage
from hpo.errors import StorageError
from tests.support.processes import wait_until
from tests.support.servers import admin, leave


def setting(connection: sa.Connection, name: str) -> str:
    return connection.scalar(sa.text("SELECT current_setting(:name)"), {"name": name})


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a host that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def swallowing() -> Iterator[int]:
    """The port of a host that does not even answer to the first packet."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        # The queue of a listener is full with these, and Linux drops what follows.
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_the_urls_own_options_reach_the_server_beside_our_settings(url):
    own = sa.make_url(url).update_query_dict({"options": "-csearch_path=mine -cwork_mem=7MB"})

    with connect(own.render_as_string(False)).connect() as connection:
        found = [setting(connection, name) for name in ("search_path", "work_mem", "lock_timeout")]
        idle = setting(connection, "idle_in_transaction_session_timeout")

    assert found == ["mine", "7MB", "5s"]
    assert idle == "1min"


def test_the_storage_shares_the_connections_of_its_engine(url):
    engine = connect(url, connections=2)
    storage = open_storage(engine)

    storage.get_all_studies()

    assert storage._backend.engine is engine
    assert engine.pool.checkedout() == 0
    assert engine.pool.checkedin() == 1


def test_two_connections_are_enough_for_the_storage_under_a_lock(url):
    engine = connect(url, connections=2)

    with alone(engine, "x") as is_alone:
        found = open_storage(engine).get_all_studies()

    assert is_alone
    assert found == []


def test_a_connection_that_the_server_closed_is_replaced_unnoticed(server, url):
    engine = connect(url)
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
    leave(server, url.rsplit("/", 1)[1])
    wait_until(lambda: waiting.is_readable(driver))

    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_lock_whose_connection_broke_raises_nothing(server, url):
    engine = connect(url)

    with locked(engine, "x"):
        leave(server, url.rsplit("/", 1)[1])

    with alone(engine, "x") as is_alone:
        assert is_alone


@pytest.mark.parametrize("hold", [alone, locked])
def test_a_lock_is_held_for_longer_than_a_transaction_may_be_idle(url, monkeypatch, hold):
    settings = connection_module._SETTINGS.replace("'60s'", "'200ms'")
    monkeypatch.setattr(connection_module, "_SETTINGS", settings)
    engine = connect(url)
    idle = sa.text("""
        SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
        AND state = 'idle in transaction' AND clock_timestamp() - state_change > '1s'
    """)

    def has_ended_or_idled() -> bool:
        return engine.pool.checkedout() and watcher.scalar(idle)

    watcher = connect(url).connect().execution_options(isolation_level="AUTOCOMMIT")
    with hold(engine, "x"), watcher:
        wait_until(has_ended_or_idled, timeout_s=30)
        with alone(connect(url), "x") as is_alone:
            assert not is_alone


def test_a_library_leaves_psycopg2_as_it_is(own, url):
    with connect(url).connect() as connection:
        driver = connection.connection.dbapi_connection
        out = io.StringIO()
        driver.cursor().copy_expert("COPY (SELECT 1) TO STDOUT", out)

    assert out.getvalue() == "1\n"


def test_an_advisory_lock_is_waited_for_beyond_the_limit_of_other_locks(url):
    engine = connect(url)
    found: list[str] = []

    def wait() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
            lock(connection, "x")
            found.append(setting(connection, "lock_timeout"))

    thread = threading.Thread(target=wait)
    with engine.begin() as connection:
        lock(connection, "x")
        thread.start()
        # Longer than the limit.
        wait_until(lambda: waited_s(url) > 0.5)
    thread.join()

    assert found == ["50ms"]


def waited_s(url: str) -> float:
    """For how long a session has waited for an advisory lock."""
    statement = """
        SELECT coalesce(extract(epoch FROM clock_timestamp() - min(waitstart)), 0)
        FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
        (SELECT oid FROM pg_database WHERE datname = current_database())
    """
    with connect(url).connect() as connection:
        return float(connection.scalar(sa.text(statement)))


@pytest.fixture
def obedient() -> Iterator[None]:
    """A process that obeys Ctrl-C while it waits for the server, as commands do."""
    waiting.install()
    yield
    extensions.set_wait_callback(None)


@pytest.fixture
def own() -> None:
    """A process that leaves all waiting to psycopg2, as a notebook or a worker."""
    extensions.set_wait_callback(None)


@pytest.mark.parametrize("kind", ["silent", "swallowing"])
@pytest.mark.parametrize(
    ("process", "says"), [("obedient", "no answer within 3 s"), ("own", "timeout expired")]
)
def test_a_host_that_does_not_answer_is_given_up_within_5_s(request, kind, process, says):
    request.getfixturevalue(process)
    port = request.getfixturevalue(kind)
    begin = time.monotonic()

    with pytest.raises(StorageError, match=rf"does not answer: .*{says}"):
        connect(f"postgresql+psycopg2://u:secret@127.0.0.1:{port}/d")

    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("process", ["obedient", "own"])
def test_a_host_that_does_not_answer_is_left_for_the_next_of_the_url(
    request, url, swallowing, process
):
    request.getfixturevalue(process)
    parsed = sa.make_url(url)
    hosts = {"host": (f"127.0.0.1:{swallowing}", f"127.0.0.1:{parsed.port}")}
    both = parsed.set(host=None, port=None).update_query_dict(hosts)

    with connect(both.render_as_string(False)).connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_program_that_writes_refuses_a_server_that_does_not(server, url):
    name = url.rsplit("/", 1)[1]
    admin(server, f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    with pytest.raises(StorageError, match="is read-only; name the primary"):
        connect(url, needs_writes=True)
    with connect(url).connect() as reader:
        assert reader.scalar(sa.text("SELECT count(*) FROM hpo.leases")) == 0
