"""The heartbeat: it fences its own worker, and hears of a trial that another program ended."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database.connection import connect
from hpo.database.schema import leases
from hpo.tickets.budget import Tickets
from hpo.tickets.ticket import Ticket
from hpo.worker import heartbeat
from hpo.worker.heartbeat import Beat
from hpo.worker.pulse import Pulse
from tests.support.processes import wait_until


@pytest.fixture
def db(url: str) -> Iterator[sa.Engine]:
    engine = connect(url, connections=2)
    yield engine
    engine.dispose()


@pytest.fixture
def tickets(db: sa.Engine) -> Tickets:
    found = Tickets(db, str(uuid.uuid4()))
    found.grow(1)
    return found


@pytest.fixture
def ticket(tickets: Tickets) -> Ticket:
    found = tickets.take(worker="w", slot="s")
    assert found is not None
    return found


def test_a_worker_whose_beats_fail_counts_its_lease_as_lost_by_its_own_clock(
    db, tickets, ticket, monkeypatch
):
    monkeypatch.setattr(heartbeat, "LEASE_S", 1.5)
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.1)
    monkeypatch.setattr(heartbeat, "_RETRY_S", 0.1)
    name = db.url.database
    other = db.url.set(database="postgres").render_as_string(hide_password=False)
    admin = connect(other).execution_options(isolation_level="AUTOCOMMIT")

    with Beat(tickets, ticket, Pulse()) as beat:
        wait_until(lambda: tickets.live()[0].silent_s < 0.5)
        first = beat.is_lost
        with admin.connect() as connection:
            # No connection from here on, as behind a network that is cut.
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.exec_driver_sql(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            try:
                wait_until(lambda: beat.is_away)
                was_lost_at_once = beat.is_lost
                wait_until(lambda: beat.is_lost)
            finally:
                connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        # The lease is still its own, and with the next beat it knows.
        wait_until(lambda: not beat.is_lost)

    assert (first, was_lost_at_once) == (False, False)


def test_a_beat_that_meets_an_error_of_any_kind_goes_on(tickets, ticket, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)
    monkeypatch.setattr(heartbeat, "_RETRY_S", 0.05)

    with Beat(tickets, ticket, Pulse()) as beat:
        # A value that the column cannot hold: no outage, and no reason to let a trial go.
        beat.note(epoch="no number")
        wait_until(lambda: beat.is_away)
        beat.note(epoch=3)
        wait_until(lambda: not beat.is_away)

    assert tickets.live()[0].epoch == 3


def test_a_taken_lease_is_lost_with_the_next_beat(db, tickets, ticket, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)

    with Beat(tickets, ticket, Pulse()) as beat:
        with db.begin() as connection:
            connection.execute(leases.delete())
        wait_until(lambda: beat.is_lost)
        # By the answer of the database, long before the lease's time is over.
        assert not beat.is_away
        assert not beat.is_over


def test_a_trial_that_has_ended_is_over_with_the_next_beat(tickets, ticket, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)
    running, ended = (sa.literal(s, sa.Enum(TrialState)) for s in ("RUNNING", "FAIL"))

    with Beat(tickets, ticket, Pulse()) as beat:
        beat.watch(sa.select(running))
        wait_until(lambda: tickets.live()[0].silent_s < 0.05)
        before = beat.is_over
        beat.watch(sa.select(ended))
        wait_until(lambda: beat.is_over)

    assert not before


def test_a_pulse_tells_the_phase_and_its_limit():
    pulse = Pulse()
    pulse.hold(7)
    for _ in range(20):
        pulse.begin("step")
        pulse.begin("")
    pulse.begin("validation")

    found = pulse.read()

    assert (found.ticket, found.phase, found.limit_s) == (7, "validation", 300.0)
    assert Pulse(15).read().limit_s == 0
    asked = Pulse(15)
    asked.begin("step")
    assert asked.read().limit_s == 15


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exception_of_any_class_ends_the_phase_in_which_it_was_raised(error):
    pulse = Pulse()

    with pytest.raises(error), pulse.closing():
        _begin_and_raise(pulse, error)

    assert pulse.read().phase == ""
    assert pulse.raised_in == "step"


def test_the_service_called_by_a_hook_is_outside_of_its_phase():
    pulse = Pulse()
    pulse.begin("suggestion")

    with pulse.outside():
        inside = pulse.read()

    assert (inside.phase, inside.limit_s) == ("", 0)
    assert pulse.read().phase == "suggestion"


def test_a_stop_is_known_as_asked_for_once_the_supervisor_has_noted_it():
    pulse = Pulse()
    before = pulse.is_asked_to_stop

    pulse.ask_to_stop()
    pulse.begin("step")

    assert not before
    assert pulse.is_asked_to_stop


def _begin_and_raise(pulse: Pulse, error: type[BaseException]) -> None:
    pulse.begin("step")
    raise error
