"""Notices: who waits for a ticket hears of it, and a trial on its way sends none."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from psycopg2 import extensions
from sqlalchemy import orm

from hpo.database import waiting
from hpo.database.connection import connect
from hpo.database.notices import Notices
from hpo.tickets.budget import Tickets
from hpo.tickets.ticket import Ticket
from tests.support.processes import wait_until
from tests.support.servers import leave

# No notice comes in this time, in which one takes some milliseconds.
NONE_S = 0.3


@pytest.fixture
def tickets(db: sa.Engine) -> Tickets:
    return Tickets(db, str(uuid.uuid4()))


@pytest.fixture(params=["obedient", "own"])
def notices(request, url: str, tickets: Tickets) -> Iterator[Notices]:
    """What a process hears that waits by itself for the server, or leaves that to psycopg2."""
    if request.param == "obedient":
        waiting.install()
    engine = connect(url, connections=2)
    with Notices(engine, tickets._study_uid) as found:
        yield found
    extensions.set_wait_callback(None)
    engine.dispose()


def has_come(notices: Notices, seconds: float = 30.0) -> bool:
    return notices.wait(seconds, threading.Event())


def end(db: sa.Engine, ticket: Ticket, state: str = "complete") -> None:
    with orm.Session(db) as session, session.begin():
        ticket.end(session, state)


def test_new_tickets_and_those_that_are_open_again_are_told(db, tickets, notices):
    notices.listen()

    tickets.grow(3)
    told = [has_come(notices)]
    first = tickets.take(worker="w", slot="s")
    tickets.release(first.run_uid)
    told.append(has_come(notices))
    again = tickets.take(worker="w", slot="s")
    tickets.lose(again.run_uid, cause="it crashed")
    told.append(has_come(notices))
    without = tickets.take(worker="w", slot="s")
    with orm.Session(db) as session, session.begin():
        without.unbind(session)
    told.append(has_come(notices))
    waiting_ones = sa.select(sa.literal(5)).scalar_subquery()
    added = tickets.queue.make_room(waiting_ones)
    told.append(has_come(notices))

    assert told == [True] * 5
    # The first ticket is for the default configuration, two others are free.
    assert added == 3
    assert not has_come(notices, NONE_S)


def test_trials_on_their_way_tell_nothing_and_the_last_ones_their_end(db, tickets, notices):
    tickets.grow(10)
    notices.listen()

    held = [tickets.take(worker="w", slot="s") for _ in range(9)]
    end(db, held.pop())
    is_told_with_one_open = has_come(notices, NONE_S)
    held.append(tickets.take(worker="w", slot="s"))
    while len(held) > 5:
        end(db, held.pop(), "pruned")
    is_told_with_many_running = has_come(notices, NONE_S)
    while held:
        end(db, held.pop(), "failed")

    assert not is_told_with_one_open
    assert not is_told_with_many_running
    assert has_come(notices)


def test_another_studys_tickets_are_not_told(db, tickets, notices):
    notices.listen()

    Tickets(db, str(uuid.uuid4())).grow(3)

    assert not has_come(notices, NONE_S)


def test_a_connection_that_breaks_ends_the_waiting_and_another_listens(
    server, url, tickets, notices
):
    notices.listen()
    threading.Timer(0.2, leave, (server, url.rsplit("/", 1)[1])).start()
    is_broken = has_come(notices)
    was_listening = notices.connection is not None

    wait_until(lambda: notices.listen() or notices.connection is not None)
    tickets.grow(1)

    assert is_broken
    assert not was_listening
    assert has_come(notices)


def test_a_request_to_stop_ends_the_waiting(notices):
    notices.listen()
    stop, began_at = threading.Event(), time.monotonic()
    threading.Timer(0.1, stop.set).start()

    assert not notices.wait(60.0, stop)
    assert time.monotonic() - began_at < 30


def test_a_connection_that_is_given_back_listens_no_longer(notices, tickets):
    notices.listen()
    engine = notices._engine

    notices.rest()

    with engine.connect() as connection:
        channels = connection.scalars(sa.text("SELECT pg_listening_channels()")).all()
        autocommit = connection.connection.dbapi_connection.autocommit
    assert channels == []
    assert not autocommit
    assert engine.pool.checkedin() == 1


def test_behind_a_pooler_nobody_listens_and_the_waiting_goes_on(url, tickets):
    parsed = sa.make_url(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=relay, args=(listener, parsed.port), daemon=True).start()
        pooled = parsed.set(port=listener.getsockname()[1]).render_as_string(False)
        engine = connect(pooled, connections=2)

        with Notices(engine, tickets._study_uid) as notices:
            notices.listen()
            is_listening = notices.connection is not None
            has_waited = not has_come(notices, NONE_S)
        engine.dispose()

    assert not is_listening
    assert has_waited


def relay(listener: socket.socket, port: int) -> None:
    """Be before the server, with process numbers of its own for the clients, as a pooler is."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        behind = socket.create_connection(("127.0.0.1", port))
        for source, target in ((client, behind), (behind, client)):
            threading.Thread(target=pass_on, args=(source, target), daemon=True).start()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    # The server's message with its process number and the key to cancel its statements.
    head = b"K\0\0\0\x0c"
    while part := source.recv(65536):
        at = part.find(head)
        if at >= 0:
            part = part[: at + 5] + b"\x7f\0\0\1" + part[at + 9 :]
        target.sendall(part)
    target.close()
