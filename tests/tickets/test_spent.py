"""What a study has spent: exact over lost workers and any order of ends; its limits hold."""

from __future__ import annotations

import math
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.database.schema import LEASE_S, leases, spans
from hpo.tickets.budget import Tickets
from hpo.tickets.ticket import Ticket

# A span's seconds are differences of times that were written before: microseconds are lost, and
# the statements between two of the database's times take milliseconds.
CLOSE_S = 0.25


@pytest.fixture
def tickets(db: sa.Engine) -> Tickets:
    found = Tickets(db, str(uuid.uuid4()))
    found.grow(200)
    found.limit(max_hours=None, max_gpu_hours=None)
    return found


def held(db: sa.Engine, tickets: Tickets, *, since_s: float, gpus: float = 0.0) -> Ticket:
    """A ticket that was taken so many seconds ago, and whose worker beat just now."""
    ticket = tickets.take(worker="w", slot="s", process="here/1:1:1", gpus=gpus)
    assert ticket is not None
    shift(db, ticket, taken_at=since_s)
    return ticket


def shift(db: sa.Engine, ticket: Ticket, **ages: float) -> None:
    """Set times of a lease to so many seconds ago."""
    now = sa.func.now()
    values = {
        name: now - sa.func.make_interval(0, 0, 0, 0, 0, 0, age_s) for name, age_s in ages.items()
    }
    with db.begin() as connection:
        connection.execute(leases.update().where(leases.c.run_uid == ticket.run_uid).values(values))


def seconds(tickets: Tickets) -> tuple[float, float]:
    found = tickets.spent()
    return found.hours * 3600, found.gpu_hours * 3600


def fold(db: sa.Engine, tickets: Tickets) -> int:
    """Add the ended spans to the sums, as one in many ends does; how many are left."""
    with db.begin() as connection:
        connection.execute(
            sa.text("SELECT hpo.fold_spans(CAST(:uid AS uuid))"), {"uid": tickets._study_uid}
        )
        return connection.scalar(sa.select(sa.func.count()).select_from(spans)) or 0


@pytest.mark.parametrize("folds", [False, True])
def test_hours_are_the_union_of_the_leases_and_gpu_hours_their_sum(db, tickets, folds):
    # 100 s ago to 40 s ago, 70 s ago to now, and long before, by itself, 1000 to 980 s ago.
    early = held(db, tickets, since_s=1000)
    shift(db, early, beat_at=980 + LEASE_S)
    tickets.release(early.run_uid)
    late = held(db, tickets, since_s=100, gpus=0.5)
    shift(db, late, beat_at=40 + LEASE_S)
    held(db, tickets, since_s=70, gpus=1.0)
    if folds:
        assert fold(db, tickets) == 0
    tickets.release(late.run_uid)
    if folds:
        assert fold(db, tickets) == 0

    hours, gpu = seconds(tickets)

    assert hours == pytest.approx(20 + 100, abs=CLOSE_S)
    assert gpu == pytest.approx(0.5 * 60 + 70, abs=CLOSE_S)


def test_an_older_lease_that_ends_after_a_younger_one_was_counted_adds_no_hour_twice(db, tickets):
    older = held(db, tickets, since_s=50)
    younger = held(db, tickets, since_s=10)
    tickets.release(younger.run_uid)
    fold(db, tickets)
    tickets.release(older.run_uid)
    fold(db, tickets)

    assert seconds(tickets)[0] == pytest.approx(50, abs=CLOSE_S)


def test_a_lost_worker_counts_until_its_lease_has_run_out_and_is_counted_as_lost(db, tickets):
    # Silent for a day: its host was gone, and the lease is swept only now.
    ticket = held(db, tickets, since_s=86_400, gpus=1.0)
    shift(db, ticket, beat_at=86_000)
    tickets.lose(ticket.run_uid, cause="its host is gone")

    assert seconds(tickets)[1] == pytest.approx(400 + LEASE_S, abs=CLOSE_S)
    assert tickets.spent().lost == 1


def test_every_end_of_many_leases_is_counted_once_in_few_rows(db, tickets):
    for _ in range(100):
        ticket = held(db, tickets, since_s=3, gpus=1.0)
        tickets.release(ticket.run_uid)
    before = seconds(tickets)

    assert fold(db, tickets) == 0
    assert seconds(tickets) == pytest.approx(before)
    # A statement between a lease's beginning and its end takes some ms, 100 times.
    assert before[1] == pytest.approx(300, abs=3)


def test_workers_that_end_at_the_same_time_are_counted_exactly(db, url, tickets):
    with db.begin() as connection:
        # Every span that was ever there, in a table that nobody adds up.
        connection.exec_driver_sql("CREATE TABLE public.seen AS SELECT * FROM hpo.spans")
        connection.exec_driver_sql(
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
            " $$ BEGIN INSERT INTO public.seen SELECT NEW.*; RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER see AFTER INSERT ON hpo.spans FOR EACH ROW EXECUTE FUNCTION see()"
        )

    def work(_: int) -> None:
        mine = Tickets(connect(url), tickets._study_uid)
        for number in range(40):
            ticket = mine.take(worker="w", slot="s", gpus=0.5)
            assert ticket is not None
            # A trial: longer than the transactions around it.
            time.sleep(0.02)
            mine.release(ticket.run_uid)
            if number % 8 == 0:
                fold(db, tickets)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with db.connect() as connection:
        count, total, union = connection.execute(
            sa.text("""
            SELECT count(*), sum(0.5 * extract(epoch FROM ended - began))::float8,
            (SELECT sum(extract(epoch FROM upper(one) - lower(one)))::float8 FROM (
                SELECT unnest(range_agg(tstzrange(began, ended))) AS one FROM public.seen
            ) AS parts)
            FROM public.seen""")
        ).one()

    busy_s, gpu_s = seconds(tickets)
    assert count == 4 * 40
    assert gpu_s == pytest.approx(total, abs=1e-6)
    # A fold that meets a lease in the middle of its end counts it until then, some ms more; one
    # that begins meanwhile is seen by the next.
    assert busy_s == pytest.approx(union, rel=0.05)


def test_no_ticket_is_taken_once_a_limit_is_reached_and_a_larger_one_goes_on(db, tickets):
    running = held(db, tickets, since_s=7200, gpus=1.0)
    tickets.limit(max_hours=None, max_gpu_hours=2.0)

    refused = tickets.take(worker="w", slot="s")
    outlook = tickets.outlook()
    over = tickets.spent()
    tickets.limit(max_hours=2.5, max_gpu_hours=math.inf)
    more = tickets.take(worker="w", slot="s")

    assert refused is None
    assert outlook.is_over and outlook.is_open and not outlook.is_spent
    assert over.reached == "--max_gpu_hours"
    assert over.sentence(left=199).endswith(
        "199 trials stay open, and a larger --max_gpu_hours goes on"
    )
    # The running trial's ticket is not cut.
    assert tickets.beat(running.run_uid, {}) is not None
    assert more is not None
    assert (tickets.spent().max_hours, tickets.spent().max_gpu_hours) == (2.5, None)
    assert not tickets.outlook().is_over
