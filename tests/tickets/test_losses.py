"""Lost workers: what counts against a trial, and what starts the count anew."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.database.schema import leases
from hpo.tickets.budget import Tickets
from hpo.tickets.losses import MAX_SILENCES, lose, verdict
from hpo.tickets.ticket import Ticket


@pytest.fixture
def db(url: str) -> Iterator[sa.Engine]:
    engine = connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def tickets(db: sa.Engine) -> Tickets:
    found = Tickets(db, str(uuid.uuid4()))
    found.grow(1)
    return found


def lost(tickets: Tickets, db: sa.Engine, *, counts: bool, saved: int | None = None) -> Ticket:
    """Take the ticket, note a checkpoint, lose the worker; the ticket as the next worker has it."""
    ticket = tickets.take(worker="w", slot="s", process="here/1:1:1")
    assert ticket is not None
    tickets.beat(ticket.run_uid, {"saved_step": saved})
    assert lose(db, "here/1:1:1", counts=counts, cause="it crashed") == [1]
    again = tickets.take(worker="w", slot="s", process="here/1:1:1")
    assert again is not None
    tickets.release(again.run_uid)
    return again


def test_the_second_loss_without_a_newer_checkpoint_ends_the_trial(tickets, db):
    first = lost(tickets, db, counts=True)
    second = lost(tickets, db, counts=True)

    assert verdict(first) is None
    assert verdict(second) == "it crashed (twice without a newer checkpoint)"


def test_a_newer_checkpoint_starts_the_count_of_losses_anew(tickets, db):
    seen = [lost(tickets, db, counts=True, saved=step).losses for step in (9, 18, 26, 35, 42)]
    stuck = lost(tickets, db, counts=True, saved=42)

    assert seen == [1] * 5
    assert stuck.losses == 2


def test_an_older_checkpoint_is_no_progress(tickets, db):
    lost(tickets, db, counts=True, saved=40)

    assert lost(tickets, db, counts=True, saved=10).losses == 2


def test_many_losses_from_outside_are_allowed_but_not_for_ever(tickets, db):
    seen = [lost(tickets, db, counts=False) for _ in range(MAX_SILENCES)]

    assert [ticket.losses for ticket in seen] == [0] * MAX_SILENCES
    assert all(verdict(ticket) is None for ticket in seen[:-1])
    assert str(verdict(seen[-1])).startswith("cause unknown: it lost 20 workers in a row")


def test_progress_starts_the_count_of_silences_anew(tickets, db):
    for _ in range(5):
        lost(tickets, db, counts=False)

    assert lost(tickets, db, counts=False, saved=8).silences == 1


def test_a_stuck_workers_lease_does_not_stop_the_sweep_of_others(db, url):
    tickets = Tickets(db, str(uuid.uuid4()))
    tickets.grow(2)
    stuck = tickets.take(worker="w", slot="s", process="here/1:1:1")
    dead = tickets.take(worker="w", slot="t", process="here/1:2:2")
    assert stuck is not None
    assert dead is not None
    other = connect(url)

    with other.begin() as connection:
        row = sa.select(leases).where(leases.c.run_uid == stuck.run_uid).with_for_update()
        connection.execute(row)
        held = lose(db, "here/1:1:1", counts=True, cause="it crashed")
        swept = lose(db, "here/1:2:2", counts=True, cause="it crashed")

    assert (list(held), list(swept)) == ([], [2])
    assert lose(db, "here/1:1:1", counts=True, cause="it crashed") == [1]
