"""The fence of a trial: lost, ended, deleted or enqueued by others; the database away."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from hpo.database import outside
from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.database.records import Records
from hpo.database.schema import metrics
from hpo.database.storage import open_storage
from hpo.embedded import server as postgres
from hpo.engine.reports import Sample
from hpo.errors import LeaseLost, TrialEnded, TrialGone
from hpo.tickets.budget import Budget, Tickets
from hpo.tickets.ticket import Ticket
from tests.support.processes import wait_until
from tests.support.servers import open_folder

UID = str(uuid.uuid4())


class Writer:
    """A worker's side of a study: its storage, its ticket and the trial under it."""

    def __init__(self, url: str) -> None:
        self.db = connect(url)
        self.tickets = Tickets(self.db, UID)
        self.storage = open_storage(connect(url))
        self.records = Records(self.db, UID)
        self.study = optuna.load_study(study_name="s", storage=self.storage)

    def begin(self, *, if_waiting: dict[str, bool] | None = None) -> optuna.Trial:
        """Take the next ticket and create or resume its trial."""
        ticket = self.tickets.take(worker="w", slot="cpu:0")
        assert ticket is not None
        self.ticket: Ticket = ticket
        self.storage.hold(ticket)
        if ticket.trial_number is not None:
            trial_id = self.storage.resume_trial(self.study._study_id)
        else:
            trial_id = self.storage.create_trial(
                self.study._study_id,
                user_attrs={"prune_reason": "-"},
                system_attrs={},
                if_waiting=if_waiting,
            )
        self.trial = optuna.Trial(self.study, trial_id)
        return self.trial

    def report(self, value: float, step: int) -> None:
        """Buffer a report with its metrics and a prediction, as a reporter does."""
        where = {"run_uid": self.ticket.run_uid, "epoch": step, "step": step}
        values = {"error": value}
        self.storage.add_metrics(
            self.records.epoch(**where, ticket=self.ticket.ticket, values=values)
        )
        sample = vars(Sample(sample=0, kind="x", latency_s=0.1, prediction=[value]))
        self.storage.alongside(
            *self.records.predicted([sample], **where, trial_number=self.trial.number)
        )
        self.trial.report(value, step)

    def settle(self) -> None:
        self.storage.settle(self.ticket, self.study._study_id)


@pytest.fixture
def url_of_study(url: str) -> str:
    optuna.create_study(study_name="s", storage=open_storage(connect(url)))
    Tickets(connect(url), UID).grow(3)
    return url


@pytest.fixture
def writer(url_of_study: str) -> Writer:
    return Writer(url_of_study)


@pytest.fixture
def other(url_of_study: str) -> optuna.Study:
    """The study as any Optuna program opens it."""
    return optuna.load_study(study_name="s", storage=url_of_study)


def delete(db: sa.Engine, number: int) -> None:
    with db.begin() as connection:
        for table in ("values", "params", "user_attributes", "system_attributes"):
            connection.exec_driver_sql(
                f"DELETE FROM trial_{table} USING trials "
                f"WHERE trials.trial_id = trial_{table}.trial_id AND number = {number}"
            )
        connection.exec_driver_sql(f"DELETE FROM trials WHERE number = {number}")


def test_a_worker_that_comes_back_after_a_takeover_writes_nothing_of_any_kind(url_of_study, other):
    frozen, successor = Writer(url_of_study), Writer(url_of_study)
    frozen.begin()
    frozen.report(9.0, 1)
    # Silence beyond the lease.
    with frozen.db.begin() as connection:
        connection.exec_driver_sql("UPDATE hpo.leases SET beat_at = now() - interval '1 hour'")
    # A server that has just started was away, and silence is not swept for two beats.
    wait_until(lambda: list(successor.tickets.sweep()) == [1])
    successor.begin()
    successor.report(1.0, 1)
    successor.storage.flush(successor.trial._trial_id)

    frozen.trial.set_user_attr("late", True)
    for write in (
        lambda: frozen.storage.flush_at_once(frozen.trial._trial_id),
        lambda: frozen.storage.flush(frozen.trial._trial_id),
        lambda: frozen.study.tell(frozen.trial, 9.0),
        frozen.settle,
    ):
        with pytest.raises(LeaseLost):
            write()

    (trial,) = other.get_trials()
    assert trial._trial_id == frozen.trial._trial_id
    assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {1: 1.0})
    assert "late" not in trial.user_attrs
    assert [row["prediction"] for row in successor.records.predictions(0)] == [[1.0]]
    with successor.db.connect() as connection:
        runs = connection.scalars(sa.select(metrics.c.run_uid)).all()
    assert runs == [successor.ticket.run_uid]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_every_write_to_a_trial_that_another_program_ended_is_refused(writer, other, state):
    trial = writer.begin()
    told = 0.0 if state == TrialState.COMPLETE else None
    other.tell(trial.number, told, state=state)
    writer.report(1.0, 1)

    for write in (
        lambda: writer.storage.flush_at_once(trial._trial_id),
        lambda: writer.storage.flush(trial._trial_id),
        # The end that this worker wanted may be the one that the other program chose.
        lambda: writer.storage.set_trial_state_values(trial._trial_id, state, [5.0]),
        lambda: writer.storage.resume_trial(writer.study._study_id),
    ):
        with pytest.raises(TrialEnded):
            write()
    writer.settle()

    (ended,) = other.get_trials()
    assert (ended.state, ended.value, ended.intermediate_values) == (state, told, {})
    assert ended.user_attrs["prune_detail"] == "ended from outside"
    assert (ended.user_attrs["prune_reason"] == "outside") == (state == TrialState.PRUNED)
    spent = writer.tickets.count()
    name = {"FAIL": "failed"}.get(state.name, state.name.lower())
    assert spent == Budget(**{"open": 2, name: 1})
    assert writer.tickets.live() == []


def test_an_end_whose_answer_was_lost_is_not_taken_for_another_programs(writer, other):
    trial = writer.begin()
    writer.study.tell(trial, 1.5)
    writer.storage.hold(writer.ticket)

    writer.storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.5])

    (ended,) = other.get_trials()
    assert ended.value == 1.5
    assert "prune_detail" not in ended.user_attrs


def test_the_ticket_of_a_deleted_trial_is_given_out_anew_without_a_loss(writer, other):
    trial = writer.begin()
    delete(writer.db, trial.number)

    for write in (
        lambda: writer.storage.flush(trial._trial_id),
        lambda: writer.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL),
        lambda: writer.storage.resume_trial(writer.study._study_id),
    ):
        with pytest.raises(TrialGone):
            write()
    writer.settle()

    # The worker's own cache shows the sampler no ghost.
    assert writer.study.get_trials() == []
    again = writer.begin()
    assert (writer.ticket.ticket, writer.ticket.losses) == (1, 0)
    assert again._trial_id != trial._trial_id


def test_no_number_is_given_twice_after_a_deletion(writer, other):
    for _ in range(2):
        writer.study.tell(writer.begin(), 1.0)
    delete(writer.db, 0)

    writer.begin()

    assert [trial.number for trial in other.get_trials()] == [1, 2]


def test_a_number_that_another_program_repeated_is_changed_when_its_trial_begins(
    writer, other, url_of_study
):
    for _ in range(2):
        writer.study.tell(writer.begin(), 1.0)
    delete(writer.db, 0)
    other.enqueue_trial({"x": 1.0})

    def numbers() -> list[int]:
        with writer.db.connect() as connection:
            return sorted(connection.exec_driver_sql("SELECT number FROM trials").scalars())

    repeated = numbers()

    trial = writer.begin(if_waiting={})

    assert (repeated, numbers()) == ([1, 1], [1, 2])
    assert trial.number == 2
    other = optuna.load_study(study_name="s", storage=open_storage(connect(url_of_study)))
    assert other.get_trials()[1].system_attrs["fixed_params"] == {"x": 1.0}


def test_times_are_the_databases(writer, other):
    trial = writer.begin()
    writer.study.tell(trial, 1.0)

    with writer.db.connect() as connection:
        (ages,) = connection.exec_driver_sql(
            "SELECT timezone('UTC', now()) - datetime_start, "
            "timezone('UTC', now()) - datetime_complete FROM trials"
        ).all()
    assert 0 <= ages[1].total_seconds() <= ages[0].total_seconds() < 60
    (ended,) = other.get_trials()
    assert abs(ended.datetime_start.timestamp() - time.time()) < 60


def test_enqueued_trials_are_begun_in_order_and_never_twice(url_of_study, other):
    first, second = Writer(url_of_study), Writer(url_of_study)
    other.enqueue_trial({"x": 1.0})
    other.enqueue_trial({"x": 2.0})

    begun = [one.begin(if_waiting={"noted": True}) for one in (first, second)]

    assert [trial.number for trial in begun] == [0, 1]
    for trial in other.get_trials():
        assert trial.system_attrs["fixed_params"] == {"x": trial.number + 1.0}
        assert trial.system_attrs["noted"] is True
        assert trial.state == TrialState.RUNNING
        assert trial.user_attrs == {"prune_reason": "-"}
    assert Writer(url_of_study).begin(if_waiting={"noted": True}).number == 2


def test_a_waiting_trial_is_left_alone_where_the_ticket_has_its_own(writer, other):
    other.enqueue_trial({"x": 1.0})

    trial = writer.begin(if_waiting=None)

    assert trial.number == 1
    assert [t.state.name for t in other.get_trials()] == ["WAITING", "RUNNING"]


def test_the_total_grows_by_the_enqueued_trials_that_no_free_ticket_takes(writer, other):
    waiting = outside.waiting(writer.study._study_id)
    none = writer.tickets.queue.make_room(waiting)
    for x in range(4):
        other.enqueue_trial({"x": float(x)})

    # The first ticket is the default configuration's, and two more are free.
    added = [writer.tickets.queue.make_room(waiting) for _ in range(2)]
    writer.begin()
    # A worker that holds a ticket without a trial is about to begin one.
    held = Writer(other._storage._backend.url)
    assert held.tickets.take(worker="w", slot="cpu:0") is not None
    again = writer.tickets.queue.make_room(waiting)

    assert (none, added, again) == (0, [2, 0], 0)
    assert writer.tickets.count().total == 5


def test_a_heartbeat_reads_a_trials_state_in_one_statement(writer, other):
    trial = writer.begin()
    statement = outside.trial_state(trial._trial_id)

    def state() -> TrialState | None:
        with writer.db.connect() as connection:
            return connection.scalar(statement)

    running = state()
    other.tell(trial.number, state=TrialState.FAIL)
    ended = state()
    delete(writer.db, trial.number)

    assert (running, ended, state()) == (TrialState.RUNNING, TrialState.FAIL, None)


@pytest.fixture
def own_server() -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """A server of the test's own: its URL, and what stops and starts it."""
    home = open_folder()
    url = postgres.start(home).url
    create_tables(connect(url))
    yield url, lambda: postgres.stop(home, immediate=True), lambda: _started(home)
    postgres.stop(home, immediate=True)
    shutil.rmtree(home, ignore_errors=True)


def _started(home: Path) -> None:
    postgres.start(home)


@pytest.mark.acceptance
def test_reports_of_an_outage_are_kept_without_waiting_and_stored_after_it(own_server):
    url, stop, start = own_server
    optuna.create_study(
        study_name="s", storage=open_storage(connect(url)), pruner=optuna.pruners.NopPruner()
    )
    Tickets(connect(url), UID).grow(1)
    writer = Writer(url)
    writer.begin()
    stop()

    began_at = time.monotonic()
    stored = []
    for step in (1, 2, 3):
        writer.report(1.0 / step, step)
        stored.append(writer.storage.flush_at_once(writer.trial._trial_id))
    read = writer.storage.at_once(lambda: writer.study.get_trials(deepcopy=False), None)
    took_s = time.monotonic() - began_at
    start()
    writer.storage.flush(writer.trial._trial_id)

    assert stored == [False] * 3
    assert read is None
    # A refused connection takes milliseconds; whoever waits does so for 45 s.
    assert took_s < 20
    found: FrozenTrial = optuna.load_study(study_name="s", storage=url).get_trials()[0]
    assert list(found.intermediate_values.items()) == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]
    assert [row["step"] for row in writer.records.predictions(0)] == [1, 2, 3]


def test_other_errors_than_an_outage_are_raised_at_once(writer: Writer):
    def fault() -> bool:
        raise RuntimeError("no outage")

    with pytest.raises(RuntimeError, match="no outage"):
        writer.storage.at_once(fault, False)
