"""The crew: a row for each worker, the version of its code, and an operator's orders."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from hpo.database.schema import LEASE_S, workers
from hpo.errors import ConfigurationError
from hpo.tickets import orders
from hpo.tickets.budget import Tickets
from hpo.tickets.crew import Crew, Member
from hpo.tickets.leases import process_id
from hpo.tickets.roster import manned

OLD = {"hpo": "aaa", "torch": "2.12.0", "optuna": "5.0.0"}
NEW = {**OLD, "torch": "2.13.0"}


@pytest.fixture
def uid() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def crew(db: sa.Engine, uid: str) -> Crew:
    return Crew(db, uid)


@pytest.fixture
def tickets(db: sa.Engine, uid: str) -> Tickets:
    found = Tickets(db, uid)
    found.grow(3)
    return found


def member(slot: str = "cpu:0", version=OLD, *, launcher: str = "none", process=None) -> Member:
    return Member(
        worker=f"here/{slot}",
        host="here",
        slot=slot,
        process=process or process_id(),
        launcher=launcher,
        version=version,
    )


def take(tickets: Tickets, one: Member):
    return tickets.take(worker=one.worker, slot=one.slot, process=one.process)


def has_drained(crew: Crew, slot: str, *, pid: int | None = os.getpid(), age_s=60.0) -> bool:
    return crew.has_drained(slot, "here", pid=pid, age_s=age_s)


def fall_silent(db: sa.Engine, seconds: float) -> None:
    with db.begin() as connection:
        connection.execute(
            workers.update().values(seen_at=sa.text(f"now() - interval '{seconds} s'"))
        )


def test_an_idle_worker_is_listed_and_one_with_a_trial_with_its_step(db, uid, crew, tickets):
    busy, idle = member("cpu:0"), member("cpu:1")
    crew.join(busy, {}, is_mixed=False)
    crew.join(idle, {}, is_mixed=False)
    held = take(tickets, busy)
    tickets.beat(held.run_uid, {"step": 7, "steps": 96})

    found = manned(db, uid)

    assert [(one.worker, one.is_idle, one.step) for one in found] == [
        ("here/cpu:0", False, 7),
        ("here/cpu:1", True, None),
    ]


def written(db: sa.Engine) -> tuple[int, bool]:
    """The last writer of the only row, and whether that was a moment ago."""
    statement = "SELECT xmin::text::int, seen_at > now() - interval '9 s' FROM hpo.workers"
    with db.connect() as connection:
        return tuple(connection.execute(sa.text(statement)).one())


def test_a_beat_and_a_look_touch_the_row_and_the_next_look_writes_nothing(db, crew, tickets):
    one = member()
    crew.join(one, {}, is_mixed=False)
    held = take(tickets, one)

    fall_silent(db, 30)
    tickets.beat(held.run_uid, {})
    by_beat = written(db)
    fall_silent(db, 30)
    tickets.outlook(worker=one.keys)
    by_look = written(db)
    tickets.outlook(worker=one.keys)
    tickets.beat(held.run_uid, {})

    assert by_beat[1]
    assert by_look[1]
    assert written(db) == by_look


def test_the_rows_of_dead_and_of_silent_workers_go(db, uid, crew):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    crew.join(member("cpu:0", process=process_id(child.pid)), {}, is_mixed=False)
    crew.join(member("cpu:1"), {}, is_mixed=False)

    child.kill()
    child.wait()
    crew.sweep()
    first = [one.slot for one in manned(db, uid)]
    crew.leave(member("cpu:1"))

    assert first == ["cpu:1"]
    assert manned(db, uid) == []


def test_a_worker_whose_row_went_is_told_so_and_writes_it_again(db, uid, crew, tickets):
    one = member()
    crew.join(one, {}, is_mixed=False)
    with db.begin() as connection:
        connection.execute(workers.delete())

    found = tickets.outlook(worker=one.keys)
    crew.renew(one)

    assert not found.is_known
    assert tickets.outlook(worker=one.keys).is_known


def test_other_code_is_refused_with_both_values_while_a_worker_lives_and_then_it_is_the_crews(
    db, uid, crew
):
    first, other = member("cpu:0"), member("cpu:1", NEW)
    crew.join(first, {}, is_mixed=False)

    with pytest.raises(ConfigurationError, match=r"here/cpu:0.*torch 2\.13\.0 here, 2\.12\.0 th"):
        crew.join(other, {}, is_mixed=False)
    with pytest.raises(ConfigurationError, match="--allow_mixed"):
        crew.claim(NEW, is_mixed=False)
    crew.join(other, {}, is_mixed=True)
    crew.leave(other)
    crew.leave(first)
    crew.join(other, {}, is_mixed=False)

    assert [one.version for one in manned(db, uid)] == [NEW]


def test_a_runs_worker_needs_the_runs_version_also_if_it_is_alone(crew):
    crew.claim(OLD, is_mixed=False)

    with pytest.raises(ConfigurationError, match="the run that set it"):
        crew.join(member(version=NEW, launcher="ray"), {}, is_mixed=False)
    crew.join(member(version=NEW), {}, is_mixed=False)


def test_a_drained_worker_gets_no_ticket_and_its_run_hears_of_it_once(db, uid, crew, tickets):
    one, other = member("cpu:0"), member("cpu:1")
    crew.join(one, {}, is_mixed=False)
    crew.join(other, {}, is_mixed=False)
    held = take(tickets, one)

    chosen = orders.drain(db, manned(db, uid), "here/cpu:0")
    beat = tickets.beat(held.run_uid, {})
    tickets.release(held.run_uid)
    refused, given = take(tickets, one), take(tickets, other)
    outlook = tickets.outlook(worker=one.keys)
    crew.leave(one)

    assert [x.slot for x in chosen] == ["cpu:0"]
    assert beat.is_drained
    assert refused is None
    assert given is not None
    assert outlook.is_drained
    assert [has_drained(crew, slot) for slot in ("cpu:0", "cpu:0", "cpu:1")] == [
        *(True, False, False)
    ]
    with pytest.raises(ConfigurationError, match="there are here, here/cpu:1"):
        orders.drain(db, manned(db, uid), "elsewhere")


def test_a_worker_that_another_run_drained_on_a_slot_of_the_same_name_is_not_this_runs(
    db, uid, crew
):
    machine = process_id().split(":")[0]
    processes = [f"{machine}:{2**22 + number}:1" for number in (1, 2)]
    for process in processes:
        crew.join(member(process=process), {}, is_mixed=False)
    with db.begin() as connection:
        connection.execute(workers.update().values(is_drained=True, left_at=sa.func.now()))

    assert not has_drained(crew, "cpu:0", pid=os.getpid())
    # Both runs hear of it.
    assert has_drained(crew, "cpu:0", pid=2**22 + 1)
    assert has_drained(crew, "cpu:0", pid=2**22 + 2)


def test_a_worker_elsewhere_that_was_drained_before_this_one_began_is_another(db, crew):
    crew.join(member("ray:0", launcher="ray", process="elsewhere:1:1"), {}, is_mixed=False)
    with db.begin() as connection:
        now = sa.func.now()
        connection.execute(workers.update().values(is_drained=True, left_at=now))
        connection.execute(workers.update().values(started_at=sa.text("now() - interval '9 s'")))

    assert not has_drained(crew, "ray:0", pid=None, age_s=5)
    assert has_drained(crew, "ray:0", pid=None, age_s=10)


def test_a_paused_study_gives_out_no_ticket_and_is_not_spent(db, uid, tickets):
    one = member()
    held = take(tickets, one)

    first = orders.pause(db, uid, gives_back=False)
    again = orders.pause(db, uid, gives_back=False)
    runs_on = tickets.beat(held.run_uid, {}).gives_back
    stronger = orders.pause(db, uid, gives_back=True)
    gives_back = tickets.beat(held.run_uid, {}).gives_back
    tickets.release(held.run_uid)
    refused, outlook = take(tickets, one), tickets.outlook()
    sentence = orders.paused(db, uid).sentence("s")
    ended = [orders.resume(db, uid), orders.resume(db, uid)]

    assert (first, again, stronger) == (True, False, True)
    assert (runs_on, gives_back) == (False, True)
    assert refused is None
    assert (outlook.is_open, outlook.is_paused, outlook.is_spent) == (False, True, False)
    assert "python -m hpo resume s" in sentence
    assert ended == [True, False]
    assert take(tickets, one) is not None


def test_a_cancelled_trial_is_named_at_the_beat_and_to_the_next_worker(db, uid, tickets):
    one = member()
    held = take(tickets, one)
    with db.begin() as connection:
        connection.execute(sa.text("UPDATE hpo.tickets SET trial_number = 4 WHERE ticket = 1"))

    worker = orders.cancel(db, uid, 4, study="s")
    beat = tickets.beat(held.run_uid, {})
    tickets.release(held.run_uid)
    interrupted = orders.cancel(db, uid, 4, study="s")
    again = take(tickets, one)
    with orm.Session(db) as session, session.begin():
        again.end(session, "pruned")

    assert worker == one.worker
    assert beat.cancelled == 4
    assert interrupted is None
    assert again.cancelled == 4
    with pytest.raises(ConfigurationError, match=r"trial 4 .* has ended \(pruned\)"):
        orders.cancel(db, uid, 4, study="s")
    with pytest.raises(ConfigurationError, match="no trial 9"):
        orders.cancel(db, uid, 9, study="s")


def test_a_silent_worker_does_not_keep_others_from_the_study(db, crew):
    # A process of another boot is never known to be dead.
    crew.join(member(process=f"elsewhere/{os.getpid()}:1:1"), {}, is_mixed=False)
    fall_silent(db, LEASE_S + 1)

    crew.claim(NEW, is_mixed=False)
