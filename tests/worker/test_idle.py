"""An idle worker: it hears of tickets, gives lost ones back, and asks the database seldom."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from hpo.database.connection import connect
from hpo.database.schema import LEASE_S, leases
from hpo.tickets.budget import Tickets
from hpo.tickets.leases import Outlook, process_id
from hpo.worker.idle import Idle
from tests.support.processes import wait_until


class Waiting:
    """A worker of its own connections that waits in a thread."""

    def __init__(self, url: str, study_uid: str) -> None:
        self.engine = connect(url, connections=2, kept=2)
        self.statements: list[str] = []
        sa.event.listen(self.engine, "before_cursor_execute", self._note)
        self.stop = threading.Event()
        self.found: list[Outlook] = []
        self.idle = Idle(Tickets(self.engine, study_uid), self.stop)
        self._thread = threading.Thread(target=self._wait)

    def _note(self, connection, cursor, statement, *_) -> None:
        self.statements.append(statement)

    def _wait(self) -> None:
        self.found.append(self.idle.wait())

    def begin(self) -> None:
        self._thread.start()
        wait_until(lambda: self.looks() and self.idle._notices.is_listening)

    def looks(self) -> int:
        return sum("is_silent" in one for one in self.statements)

    def end(self) -> Outlook:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.found[-1]


@pytest.fixture
def tickets(url: str) -> Iterator[Tickets]:
    engine = connect(url)
    yield Tickets(engine, str(uuid.uuid4()))
    engine.dispose()


@pytest.fixture
def worker(url: str, tickets: Tickets) -> Iterator[Waiting]:
    found = Waiting(url, tickets._study_uid)
    yield found
    found.stop.set()
    found.idle.__exit__()
    found.engine.dispose()


def test_a_ticket_that_is_given_back_ends_the_waiting_and_so_does_the_end_of_the_last(
    url, tickets, worker
):
    tickets.grow(1)
    held = tickets.take(worker="w", slot="s")
    worker.begin()

    tickets.release(held.run_uid)
    first = worker.end()
    again = tickets.take(worker="w", slot="s")
    other = Waiting(url, tickets._study_uid)
    other.begin()
    with orm.Session(tickets._engine) as session, session.begin():
        again.end(session, "complete")
    last = other.end()

    assert first.is_open
    assert last.is_spent
    other.idle.__exit__()


def test_an_idle_worker_listens_on_one_of_its_two_connections_and_has_both_afterwards(
    tickets, worker
):
    tickets.grow(1)
    held = tickets.take(worker="w", slot="s")
    worker.begin()

    at_most = worker.engine.pool.checkedout()
    tickets.release(held.run_uid)
    worker.end()
    worker.idle.end()

    assert at_most <= 2
    assert worker.engine.pool.checkedout() == 0
    with worker.engine.connect() as one, worker.engine.connect() as two:
        assert one.scalar(sa.text("SELECT 1")) == two.scalar(sa.text("SELECT 1"))


def test_the_ticket_of_a_process_that_died_on_this_host_is_given_back(tickets, worker):
    tickets.grow(1)
    held = tickets.take(worker="child", slot="s")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with tickets._engine.begin() as connection:
        connection.execute(leases.update().values(process=process_id(child.pid)))
    worker.begin()

    child.kill()
    child.wait()

    assert worker.end().is_open
    again = tickets.take(worker="w", slot="s")
    assert (again.ticket, again.silences) == (held.ticket, 1)


def test_a_silent_lease_is_seen_at_a_look(tickets, worker):
    tickets.grow(1)
    tickets.take(worker="w", slot="s")
    with tickets._engine.begin() as connection:
        connection.execute(
            leases.update().values(
                beat_at=sa.text(f"now() - interval '{LEASE_S + 1} s'"), process="elsewhere/1:1:1"
            )
        )

    found = tickets.outlook()

    assert found.is_silent
    assert found.has_lost()
    assert list(found.processes) == []
    # A server that has just started was away, and silence is not swept for two beats.
    wait_until(lambda: list(tickets.sweep()) == [1])


def test_an_open_ticket_that_cannot_be_taken_is_not_asked_for_all_the_time(tickets, worker):
    tickets.grow(1)
    with tickets.held_still():
        threading.Timer(1.0, worker.stop.set).start()
        while not worker.stop.is_set():
            assert worker.idle.wait().is_open
            assert worker.idle._tickets.take(worker="w", slot="s") is None

    # The pauses are 0.1, 0.2, 0.4 s, each less a quarter at most.
    assert 2 <= worker.looks() <= 7


def test_workers_with_tickets_seldom_look_for_lost_ones(tickets, worker):
    tickets.grow(4)
    for _ in range(4):
        tickets.take(worker="w", slot="s")

    for _ in range(100):
        worker.idle.sweep()

    assert worker.looks() == 1


def test_a_request_to_stop_ends_the_waiting(tickets, worker):
    tickets.grow(1)
    tickets.take(worker="w", slot="s")
    worker.begin()

    worker.stop.set()

    found = worker.end()
    assert not found.is_open
    assert found.is_leased
