"""Every store of checkpoints: what goes in comes out whole, and of attempts the latest counts."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.database.checkpoints import Origin, StoredCheckpoints
from hpo.errors import LeaseLost
from hpo.study.objects import Objects
from hpo.tickets.budget import Tickets
from hpo.tickets.ticket import Ticket
from hpo.worker.transfer import Store

# Two parts of a row each, and a bit.
CONTENT = bytes(range(256)) * 9000


class Fleet:
    """Attempts at the one ticket of a study, and the store that they share."""

    def __init__(self, db: sa.Engine, make: Callable[[str], Store]) -> None:
        uid = str(uuid.uuid4())
        self.tickets, self.store, self._db = Tickets(db, uid), make(uid), db
        self._held: Ticket | None = None
        self.tickets.grow(1)

    def attempt(self) -> Ticket:
        """The next attempt at trial 17, whose earlier worker is given up."""
        if self._held is not None:
            self.tickets.release(self._held.run_uid)
        self._held = ticket = self.tickets.take(worker="w", slot="s")
        assert ticket is not None
        with self._db.begin() as connection:
            connection.exec_driver_sql("UPDATE hpo.tickets SET trial_number = 17")
        return ticket

    def put(self, ticket: Ticket, step: int, content: bytes = CONTENT, number: int = 17) -> None:
        where = {"run_uid": ticket.run_uid, "ticket": 1, "attempt": ticket.attempt}
        self.store.put(
            io.BytesIO(content),
            Origin(**where, number=number, step=step),
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    def found(self, number: int = 17) -> list[tuple[int, int]]:
        """Attempt and step of each copy, the latest first."""
        return [(c.attempt, c.step) for c in self.store.copies(number, below=99, above=-1)]


@pytest.fixture(params=["database", "file"])
def fleet(request: pytest.FixtureRequest, db: sa.Engine, tmp_path: Path) -> Fleet:
    if request.param == "database":
        return Fleet(db, lambda uid: StoredCheckpoints(db, uid))
    return Fleet(db, lambda uid: Objects(f"file://{tmp_path}/objects", uid))


def test_a_copy_comes_back_as_it_was_and_names_its_checksum(fleet: Fleet):
    fleet.put(fleet.attempt(), 600)

    (copy,) = fleet.store.copies(17, below=2, above=0)

    assert (copy.attempt, copy.step) == (1, 600)
    assert b"".join(copy.read()) == CONTENT
    assert hashlib.sha256(CONTENT).hexdigest().startswith(copy.sha256)


def test_a_newer_copy_takes_the_place_of_the_trials_earlier_ones(fleet: Fleet):
    first = fleet.attempt()
    fleet.put(first, 100)
    fleet.put(first, 200)
    of_one = fleet.found()

    fleet.put(fleet.attempt(), 150)

    assert of_one == [(1, 200)]
    # A later attempt counts more, whatever its step: the earlier one may have been cut off.
    assert fleet.found() == [(2, 150)]


def test_an_earlier_attempts_late_copy_replaces_nothing_and_is_never_preferred(fleet: Fleet):
    lost = fleet.attempt()
    fleet.put(lost, 100)
    fleet.put(fleet.attempt(), 150)

    try:
        fleet.put(lost, 900)
    except LeaseLost:
        assert fleet.found() == [(2, 150)]

    assert fleet.found()[0] == (2, 150)
    # Nor does a third attempt take what was written under a later number than its own.
    assert [c.attempt for c in fleet.store.copies(17, below=2, above=0)] in ([], [1])


def test_copies_of_other_trials_stay_where_one_is_discarded(fleet: Fleet):
    ticket = fleet.attempt()
    fleet.put(ticket, 1, number=17)
    fleet.put(ticket, 2, number=170)

    fleet.store.discard(17)

    assert (fleet.found(17), fleet.found(170)) == ([], [(1, 2)])


def test_a_sweep_leaves_running_trials_and_the_best(fleet: Fleet):
    ticket = fleet.attempt()
    for number in (1, 2, 3):
        fleet.put(ticket, 1, number=number)

    fleet.store.sweep({1, 2}, keep=(2, 1))

    assert [fleet.found(number) for number in (1, 2, 3)] == [[], [(1, 1)], [(1, 1)]]


def test_where_nothing_was_stored_there_is_nothing(fleet: Fleet):
    fleet.store.discard(17)
    fleet.store.sweep({17}, keep=None)

    assert fleet.found() == []
