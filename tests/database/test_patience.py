"""Waiting for a database that is away: told once, for as long as asked, ended at once by Ctrl-C."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from psycopg2 import extensions
from sqlalchemy.exc import DBAPIError, OperationalError

from hpo.database import patience, waiting
from hpo.database.connection import connect
from hpo.database.patience import (
    end_with,
    give_up_at,
    on_outage,
    set_patience,
    since_outage_s,
    with_retries,
)
from tests.support.processes import wait_until
from tests.support.servers import admin, leave

DAY_S = 86_400.0


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """A process that nobody has told anything, before and after."""
    yield
    patience.reset()
    extensions.set_wait_callback(None)
    patience._hurried.clear()


class Door:
    """A database that can be shut, and a statement on it."""

    def __init__(self, server, url: str) -> None:
        self._server, self._name = server, url.rsplit("/", 1)[1]
        self.engine = connect(url)

    def shut(self) -> None:
        admin(self._server, f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false")
        leave(self._server, self._name)

    def open(self) -> None:
        admin(self._server, f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS true")

    def ask(self) -> int:
        with self.engine.connect() as connection:
            return connection.scalar(sa.text("SELECT 1"))


@pytest.fixture
def door(server, url: str) -> Iterator[Door]:
    door = Door(server, url)
    yield door
    door.open()


def ends_after_s(work: Callable[[], object], started: Callable[[], object] = lambda: None) -> float:
    """How long after `started` returned a statement fails for a database that is away."""
    failed: list[float] = []

    def wait() -> None:
        with pytest.raises(OperationalError):
            work()
        failed.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    started()
    begin = time.monotonic()
    thread.join()
    return failed[0] - begin


def test_an_outage_is_told_once_and_its_end_is(door: Door, caplog: pytest.LogCaptureFixture):
    answers: list[int] = []
    door.shut()
    threads = [
        threading.Thread(target=lambda: answers.append(with_retries(door.ask))) for _ in range(3)
    ]

    for thread in threads:
        thread.start()
    wait_until(lambda: "the database is away" in caplog.text)
    during_s = since_outage_s()
    door.open()
    for thread in threads:
        thread.join()

    assert answers == [1, 1, 1]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("the database is away: ")
    assert "not currently accepting connections; trying again for up to 4" in said[0]
    assert said[1].startswith("the database is back after ")
    assert during_s == 0
    assert 0 < since_outage_s() < math.inf


def test_a_connection_that_breaks_is_replaced_without_a_word(server, url, caplog):
    engine, calls = connect(url), []

    def work() -> int:
        with engine.connect() as connection:
            calls.append(None)
            if len(calls) == 1:
                leave(server, url.rsplit("/", 1)[1])
            return connection.scalar(sa.text("SELECT 1"))

    assert with_retries(work) == 1
    assert len(calls) == 2
    assert not caplog.records


def test_a_process_waits_for_as_long_as_its_patience(door: Door):
    set_patience(1.5)
    door.shut()

    took_s = ends_after_s(lambda: with_retries(door.ask))

    # Pauses end by 2 s.
    assert 1 < took_s < 10


def test_nothing_is_waited_for_beyond_the_time_of_the_process(door: Door):
    set_patience(DAY_S)
    give_up_at(time.monotonic() + 1.5)
    door.shut()

    assert ends_after_s(lambda: with_retries(door.ask)) < 10


def test_an_interruption_ends_the_waiting(door: Door, caplog: pytest.LogCaptureFixture):
    set_patience(DAY_S)
    door.shut()

    def interrupt() -> None:
        wait_until(lambda: "the database is away" in caplog.text)
        patience.stop_waiting()

    assert ends_after_s(lambda: with_retries(door.ask), interrupt) < 5


def test_an_interruption_ends_a_statement_that_waits_for_a_lock(url):
    set_patience(DAY_S)
    waiting.install()
    engine = connect(url)

    def blocked() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql("SELECT * FROM hpo.leases")

    def interrupt() -> None:
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'hpo.leases'::regclass"
        with connect(url).connect() as watcher:
            wait_until(lambda: watcher.scalar(sa.text(waiting)), timeout_s=30)
        patience.stop_waiting()

    with connect(url).begin() as other:
        other.exec_driver_sql("LOCK TABLE hpo.leases IN ACCESS EXCLUSIVE MODE")
        # The statement has 2 s.
        assert 1 < ends_after_s(blocked, interrupt) < 10


def test_an_event_ends_the_waiting_while_it_is_set(door: Door, caplog: pytest.LogCaptureFixture):
    set_patience(DAY_S)
    stop = threading.Event()
    end_with(stop)
    door.shut()

    def interrupt() -> None:
        wait_until(lambda: "the database is away" in caplog.text)
        stop.set()

    assert ends_after_s(lambda: with_retries(door.ask), interrupt) < 5


def test_a_statement_that_goes_on_after_an_interruption_has_2_s_for_each_part(url):
    waiting.install()
    patience.stop_waiting()
    # The server sends what is larger than its buffer of 8 kB.
    part = "SELECT pg_sleep(0.9), repeat('x', 20000)"

    with connect(url).connect() as connection:
        # All parts together take longer.
        found = connection.exec_driver_sql(f"{part}; {part}; {part}; SELECT 1").scalar()

    assert found == 1


def test_a_server_that_answers_is_not_revived(server, url):
    revived: list[float] = []
    on_outage(lambda: revived.append(time.monotonic()))
    set_patience(1.5)
    engine = connect(url)
    admin(server, f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET default_transaction_read_only = on")
    leave(server, url.rsplit("/", 1)[1])

    def write() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM hpo.leases")

    with pytest.raises(DBAPIError, match="read-only"):
        with_retries(write)

    # The thread of a revival starts within the try that notices the outage.
    assert revived == []


def test_a_server_is_revived_in_an_outage_and_not_for_each_try(door: Door):
    revived: list[float] = []
    on_outage(lambda: revived.append(time.monotonic()))
    set_patience(4)
    door.shut()

    ends_after_s(lambda: with_retries(door.ask))

    assert len(revived) == 1
