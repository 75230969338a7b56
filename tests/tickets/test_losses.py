"""Lost workers: what counts against a trial, and what starts the count anew."""

from __future__ import annotations

import threading
import uuid

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.database.patience import since_outage_s
from hpo.database.schema import LEASE_S, leases
from hpo.tickets.budget import Tickets
from hpo.tickets.losses import MAX_SILENCES, lose, verdict
from hpo.tickets.ticket import Ticket
from tests.support.processes import wait_until

PROCESS = "here/1:1:1"


@pytest.fixture
def tickets(db: sa.Engine) -> Tickets:
    found = Tickets(db, str(uuid.uuid4()))
    found.grow(1)
    return found


def lost(tickets: Tickets, db: sa.Engine, *, counts: bool, saved: int | None = None) -> Ticket:
    """Take the ticket, note a checkpoint, lose the worker; the ticket as the next worker has it."""
    ticket = tickets.take(worker="w", slot="s", process=PROCESS)
    assert ticket is not None
    tickets.beat(ticket.run_uid, {"saved_step": saved})
    lose_it(db, ticket, counts=counts)
    again = tickets.take(worker="w", slot="s", process=PROCESS)
    assert again is not None
    tickets.release(again.run_uid)
    return again


def lose_it(db: sa.Engine, ticket: Ticket, *, counts: bool) -> None:
    lose(
        db,
        PROCESS,
        study_uid=ticket.study_uid,
        ticket=ticket.ticket,
        attempt=ticket.attempt,
        count="losses" if counts else "silences",
        cause="it crashed",
    )


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
    stuck = tickets.take(worker="w", slot="s")
    silent = tickets.take(worker="w", slot="t")
    assert stuck is not None
    assert silent is not None
    with db.begin() as connection:
        age = sa.text(f"now() - interval '{LEASE_S + 1} s'")
        connection.execute(leases.update().values(beat_at=age))

    with connect(url).begin() as other:
        other.execute(sa.select(leases).where(leases.c.run_uid == stuck.run_uid).with_for_update())
        # A server that has just started was away, and silence is not swept for two beats.
        wait_until(lambda: list(tickets.sweep()) == [2])

    assert list(tickets.sweep()) == [1]


def test_a_hang_that_was_swept_as_silence_counts_as_the_loss_that_it_is(tickets, db):
    hung = tickets.take(worker="w", slot="s", process=PROCESS)
    with db.begin() as connection:
        connection.execute(leases.delete())
        connection.exec_driver_sql("UPDATE hpo.tickets SET state = 'open', silences = 1")

    lose_it(db, hung, counts=True)

    again = tickets.take(worker="w", slot="s")
    assert (again.losses, again.silences, again.cause) == (1, 0, "it crashed")


def test_a_loss_is_of_the_ticket_that_was_held_alone(db):
    tickets = Tickets(db, str(uuid.uuid4()))
    tickets.grow(2)
    # The answer of the first take was lost, and its lease is still the same process's.
    tickets.take(worker="w", slot="s", process=PROCESS)
    held = tickets.take(worker="w", slot="s", process=PROCESS)

    lose_it(db, held, counts=True)

    assert [lease.ticket for lease in tickets.live()] == [1]
    assert tickets.take(worker="w", slot="s").losses == 1


def test_the_next_trial_of_a_ticket_has_no_losses_yet(tickets, db):
    lost(tickets, db, counts=True, saved=40)
    ticket = tickets.take(worker="w", slot="s")

    with sa.orm.Session(db) as session, session.begin():
        ticket.unbind(session)

    again = tickets.take(worker="w", slot="s")
    assert (again.losses, again.cause) == (0, None)


@pytest.mark.acceptance
def test_a_sweep_that_waited_out_an_outage_takes_no_living_workers_lease(tickets, db, url):
    tickets.take(worker="w", slot="s")
    other = connect(url).connect()
    # Until then a server was away itself, and no silence is swept.
    age = sa.text("SELECT clock_timestamp() - pg_postmaster_start_time() > interval '12 s'")
    wait_until(lambda: other.scalar(age))
    # As after beats that failed for as long as the lock was held.
    other.exec_driver_sql("UPDATE hpo.leases SET beat_at = now() - interval '100 s'")
    other.commit()
    other.exec_driver_sql("LOCK TABLE hpo.leases IN EXCLUSIVE MODE")

    def let_go() -> None:
        wait_until(lambda: since_outage_s() == 0)
        other.commit()

    thread = threading.Thread(target=let_go)
    thread.start()
    try:
        swept = tickets.sweep()
    finally:
        thread.join()
        other.close()

    assert list(swept) == []
