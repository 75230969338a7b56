"""Tickets: exactly N, whoever takes them and whoever dies."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.database.schema import leases
from hpo.errors import LeaseLost
from hpo.tickets.budget import Tickets
from hpo.tickets.leases import LEASE_S, is_dead, process_id
from tests.support.processes import wait_until


@pytest.fixture
def tickets(db) -> Tickets:
    return Tickets(db, str(uuid.uuid4()))


def test_many_takers_get_each_ticket_once(tickets, url):
    tickets.grow(40)
    taken: list[int] = []

    def take_all() -> None:
        mine = Tickets(connect(url), tickets._study_uid)
        while (ticket := mine.take(worker="w", slot="s")) is not None:
            taken.append(ticket.ticket)

    threads = [threading.Thread(target=take_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == list(range(1, 41))


def test_the_total_is_the_greater_of_what_is_and_what_is_asked(tickets):
    assert [tickets.grow(n) for n in (5, 3, 8, 8)] == [5, 5, 8, 8]


def test_a_released_ticket_is_taken_again_and_counts_no_loss(tickets):
    tickets.grow(2)
    first = tickets.take(worker="w", slot="s")

    tickets.release(first.run_uid)
    again = tickets.take(worker="w", slot="s")

    assert (again.ticket, again.attempt, again.losses) == (first.ticket, 2, 0)
    assert again.run_uid != first.run_uid


def test_the_lease_of_a_dead_process_is_swept_at_once_and_a_living_one_is_left(tickets, db):
    tickets.grow(2)
    mine = tickets.take(worker="me", slot="s")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = tickets.take(worker="child", slot="s")
    with db.begin() as connection:
        connection.execute(
            leases.update()
            .where(leases.c.run_uid == theirs.run_uid)
            .values(process=process_id(child.pid))
        )
    before = tickets.sweep()
    child.kill()
    child.wait()

    swept = tickets.sweep()

    assert list(before) == []
    assert list(swept) == [theirs.ticket]
    assert tickets.beat(mine.run_uid, {})
    assert not tickets.beat(theirs.run_uid, {})


def test_a_process_of_another_machine_is_not_judged_by_its_number(tickets, db):
    tickets.grow(1)
    ticket = tickets.take(worker="w", slot="s")
    with db.begin() as connection:
        connection.execute(leases.update().values(process="elsewhere/1:99999999:1"))

    assert list(tickets.sweep()) == []
    assert tickets.beat(ticket.run_uid, {})


def test_a_silent_lease_is_swept_by_the_databases_clock_and_its_holder_is_fenced(tickets, db):
    tickets.grow(1)
    ticket = tickets.take(worker="w", slot="s")
    with db.begin() as connection:
        age = sa.text(f"now() - interval '{LEASE_S + 1} s'")
        connection.execute(leases.update().values(beat_at=age))

    # A server that has just started was away, and silence is not swept for two beats.
    wait_until(lambda: list(tickets.sweep()) == [1])

    again = tickets.take(worker="other", slot="s")
    assert (again.losses, again.silences) == (0, 1)
    with sa.orm.Session(db) as session, pytest.raises(LeaseLost):
        ticket.check(session)


def test_progress_is_seen_by_others(tickets):
    tickets.grow(1)
    ticket = tickets.take(worker="w", slot="gpu:0")

    tickets.beat(ticket.run_uid, {"epoch": 3, "epochs": 12, "value": -4.5})

    (lease,) = tickets.live()
    assert (lease.slot, lease.epoch, lease.epochs, lease.value) == ("gpu:0", 3, 12, -4.5)
    assert lease.silent_s < 5


def test_a_process_is_told_apart_from_a_later_one_with_its_number():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    alive = process_id(child.pid)
    child.wait()

    assert alive.count(":") == 2
    assert process_id(child.pid) == ""
    assert is_dead(alive)
    assert not is_dead(process_id())


def test_configurations_are_tried_once_whole_or_in_part_and_the_first_ticket_is_left(tickets):
    tickets.grow(5)
    part, whole = {"lr": 0.1}, {"lr": 0.2, "width": 32}

    first = tickets.queue.enqueue([part, whole, part], [{"lr": 0.1, "width": 64}])
    again = tickets.queue.enqueue([part, whole], [])
    tried = tickets.queue.enqueue([{"lr": 0.3}], [{"lr": 0.3}])
    too_many = tickets.queue.enqueue([{"lr": n} for n in range(4)], [])
    taken = [tickets.take(worker="w", slot="s").params for _ in range(5)]

    # A trial that happens to share a part of its values is none of it.
    assert first == (2, 0)
    assert again == tried == (0, 0)
    # All or nothing: two tickets are free.
    assert too_many == (0, 2)
    assert taken == [None, part, whole, None, None]


def test_two_that_enqueue_the_same_at_once_enqueue_it_once(tickets, url):
    tickets.grow(9)
    added: list[int] = []

    def enqueue() -> None:
        mine = Tickets(connect(url), tickets._study_uid)
        added.append(mine.queue.enqueue([{"lr": 0.1}, {"lr": 0.2}], [])[0])

    threads = [threading.Thread(target=enqueue) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(added) == [0, 0, 0, 0, 0, 2]
    assert tickets.queue.free() == 6


def test_no_ticket_is_taken_while_they_are_held_still(tickets, url):
    tickets.grow(2)
    mine = tickets.take(worker="me", slot="s")

    with tickets.held_still() as leases:
        held = [lease.worker for lease in leases]
        taken = Tickets(connect(url), tickets._study_uid).take(worker="other", slot="s")

    assert held == ["me"]
    assert taken is None
    assert tickets.take(worker="other", slot="s").ticket != mine.ticket
