"""A budget that is counted again and again is the same as one that is counted anew."""

from __future__ import annotations

import random
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from hpo.database.schema import tickets as table
from hpo.tickets.budget import Budget, Tickets

ENDED = ("complete", "pruned", "failed")


@pytest.mark.parametrize("seed", range(4))
def test_it_follows_tickets_that_are_taken_given_back_ended_and_opened_again(db, seed):
    drawn = random.Random(seed)
    counted = Tickets(db, str(uuid.uuid4()))
    counted.grow(20)
    held = []

    def step() -> None:
        action = drawn.random()
        if action < 0.5 and (ticket := counted.take(worker="w", slot="s")):
            held.append(ticket)
        elif held and action < 0.85:
            ticket = held.pop(drawn.randrange(len(held)))
            with orm.Session(db) as session, session.begin():
                ticket.end(session, drawn.choice(ENDED))
        elif held and action < 0.92:
            counted.release(held.pop().run_uid)
        elif action < 0.96:
            counted.grow(counted.count().total + 2)
        else:
            # As after a rename by another program.
            one = (table.c.study_uid == counted._study_uid) & table.c.state.in_(ENDED)
            lowest = sa.select(sa.func.min(table.c.ticket)).where(one).scalar_subquery()
            mine = (table.c.study_uid == counted._study_uid) & (table.c.ticket == lowest)
            with db.begin() as connection:
                connection.execute(table.update().where(mine).values(state="open"))

    settled = 1
    for _ in range(60):
        step()
        assert counted.count() == Tickets(db, counted._study_uid).count()
        settled = max(settled, counted._counted._since)
    assert settled > 1


def test_a_study_without_a_ticket_has_none(db):
    counted = Tickets(db, str(uuid.uuid4()))

    assert counted.count() == counted.count() == Budget()


def test_the_last_end_is_counted_anew(db):
    counted = Tickets(db, str(uuid.uuid4()))
    counted.grow(3)
    for _ in range(2):
        with orm.Session(db) as session, session.begin():
            counted.take(worker="w", slot="s").end(session, "complete")
    before = counted.count()

    with orm.Session(db) as session, session.begin():
        session.execute(table.update().where(table.c.ticket == 1).values(state="failed"))
        counted.take(worker="w", slot="s").end(session, "pruned")

    assert before == Budget(open=1, complete=2)
    assert counted.count() == Budget(complete=1, failed=1, pruned=1)
