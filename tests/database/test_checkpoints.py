"""Checkpoints in the database: fenced by the lease, limited in size, gone with their study."""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from hpo.database.checkpoints import LARGEST_BYTES, Origin, Refused, StoredCheckpoints
from hpo.database.schema import checkpoints
from hpo.errors import LeaseLost
from hpo.tickets.budget import Tickets
from hpo.tickets.ticket import Ticket

UID = str(uuid.uuid4())


def taken(db: sa.Engine, trials: int) -> Sequence[Ticket]:
    """The tickets of a study, held, with a trial of their number each."""
    tickets = Tickets(db, UID)
    tickets.grow(trials)
    found = [tickets.take(worker="w", slot="s") for _ in range(trials)]
    with db.begin() as connection:
        connection.exec_driver_sql("UPDATE hpo.tickets SET trial_number = ticket")
    return [ticket for ticket in found if ticket is not None]


def put(store: StoredCheckpoints, ticket: Ticket, size: int = 100) -> None:
    origin = Origin(
        run_uid=ticket.run_uid,
        ticket=ticket.ticket,
        number=ticket.ticket,
        attempt=ticket.attempt,
        step=1,
    )
    store.put(io.BytesIO(b"x" * size), origin, size=size, sha256="-")


def end(db: sa.Engine, ticket: Ticket, state: str = "complete") -> None:
    with db.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE hpo.tickets SET state = %s WHERE ticket = %s", (state, ticket.ticket)
        )
        connection.exec_driver_sql("DELETE FROM hpo.leases WHERE ticket = %s", (ticket.ticket,))


def stored(db: sa.Engine) -> list[int]:
    """The trials that have a copy."""
    statement = sa.select(checkpoints.c.trial_number).distinct().order_by(sa.text("1"))
    with db.connect() as connection:
        return list(connection.scalars(statement))


def test_a_worker_without_its_lease_writes_nothing(db: sa.Engine):
    (ticket,) = taken(db, 1)
    Tickets(db, UID).release(ticket.run_uid)

    with pytest.raises(LeaseLost):
        put(StoredCheckpoints(db, UID), ticket)

    assert stored(db) == []


def test_a_lease_that_is_lost_between_two_parts_leaves_the_earlier_copy(db: sa.Engine):
    (ticket,) = taken(db, 1)
    store = StoredCheckpoints(db, UID)
    put(store, ticket)

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                Tickets(db, UID).release(ticket.run_uid)
            return super().read(size)

    origin = Origin(run_uid=ticket.run_uid, ticket=1, number=1, attempt=1, step=2)
    with pytest.raises(LeaseLost):
        store.put(Slow(b"x" * (3 << 20)), origin, size=3 << 20, sha256="-")

    (copy,) = store.copies(1, below=2, above=0)
    assert (copy.step, b"".join(copy.read())) == (1, b"x" * 100)


def test_who_completed_a_trial_may_store_its_last_state_and_nobody_else(db: sa.Engine):
    best, failed = taken(db, 2)
    end(db, best)
    end(db, failed, "failed")
    store = StoredCheckpoints(db, UID)

    put(store, best)
    with pytest.raises(LeaseLost):
        put(store, failed)

    assert stored(db) == [1]


def test_a_checkpoint_that_is_too_large_is_refused_before_it_is_read(db: sa.Engine):
    (ticket,) = taken(db, 1)
    origin = Origin(run_uid=ticket.run_uid, ticket=1, number=1, attempt=1, step=1)
    file = io.BytesIO(b"x")

    with pytest.raises(Refused, match="larger than the database takes"):
        StoredCheckpoints(db, UID).put(file, origin, size=LARGEST_BYTES + 1, sha256="-")

    assert file.tell() == 0


def test_at_the_budget_ended_trials_give_way_the_oldest_first_and_running_ones_never(
    db: sa.Engine,
):
    tickets = taken(db, 5)
    store = StoredCheckpoints(db, UID, budget_bytes=300)
    for ticket in tickets[:3]:
        put(store, ticket)
    end(db, tickets[0])
    end(db, tickets[1])

    put(store, tickets[3])
    after_one = stored(db)
    put(store, tickets[4])
    after_two = stored(db)
    with pytest.raises(Refused, match="running trials have reached"):
        put(store, tickets[3], 101)
    # Its own earlier copy makes room for the next.
    put(store, tickets[3], 100)

    assert (after_one, after_two, stored(db)) == ([2, 3, 4], [3, 4, 5], [3, 4, 5])


def test_the_budget_is_each_studys_own(db: sa.Engine):
    first, second = taken(db, 2)
    store = StoredCheckpoints(db, UID, budget_bytes=100)
    put(store, first)
    with db.begin() as connection:
        connection.exec_driver_sql("UPDATE hpo.checkpoints SET study_uid = gen_random_uuid()")

    put(store, second)

    assert stored(db) == [1, 2]
