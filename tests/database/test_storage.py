"""The storage: one transaction a write, fenced, and nothing written that is not ours."""

from __future__ import annotations

import inspect
import multiprocessing
import re
import uuid
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models as tables
from optuna.trial import TrialState

from hpo.database import migrations
from hpo.database.connection import connect, mask, parse_url
from hpo.database.migrations import create_tables
from hpo.database.preconditions import _scripts, head, look
from hpo.database.schema import SCHEMA_VERSION
from hpo.database.storage import TrialStorage, open_storage
from hpo.errors import ConfigurationError, LeaseLost, StorageError
from hpo.tickets.budget import Budget, Tickets
from hpo.tickets.ticket import Ticket
from tests.support.program import HANGS_S


def seen_by_others(url: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=url).get_trials()


@pytest.fixture
def ticket(study: optuna.Study, tickets: Tickets) -> Ticket:
    """The first ticket of the study, under a lease."""
    taken = tickets.take(worker="w", slot="cpu:0")
    assert taken is not None
    return taken


@pytest.fixture
def tickets(url: str) -> Tickets:
    """A budget of one trial."""
    found = Tickets(connect(url), str(uuid.uuid4()))
    found.grow(1)
    return found


def begin(storage: TrialStorage, study: optuna.Study, ticket: Ticket) -> optuna.Trial:
    storage.hold(ticket)
    trial_id = storage.create_trial(
        study._study_id, user_attrs={"prune_reason": "-"}, system_attrs={}
    )
    return optuna.Trial(study, trial_id)


def test_the_revision_of_optunas_tables_is_read_as_alembic_finds_it(url):
    assert head() == _scripts().get_current_head()
    assert look(connect(url)).is_optunas


def test_optuna_still_has_what_the_storage_extends(url):
    # What the storage sets in place of `RDBStorage.__init__`.
    assigned = set(re.findall(r"self\.(\w+)(?:: .*)? = ", inspect.getsource(RDBStorage.__init__)))
    own = set(vars(open_storage(connect(url))._backend))
    assert assigned - own == {"_version_manager"}
    for name in ("_read_trials_from_remote_storage", "_backend"):
        assert hasattr(_CachedStorage, name) or name in inspect.getsource(_CachedStorage.__init__)
    columns = {
        tables.TrialParamModel: {"trial_id", "param_name", "param_value", "distribution_json"},
        tables.TrialUserAttributeModel: {"trial_id", "key", "value_json"},
        tables.TrialSystemAttributeModel: {"trial_id", "key", "value_json"},
        tables.TrialIntermediateValueModel: {
            *("trial_id", "step", "intermediate_value", "intermediate_value_type"),
        },
    }
    for model, names in columns.items():
        assert names <= set(model.__table__.columns.keys())


def test_parameters_are_stored_all_or_none(storage, study, ticket, url):
    trial = begin(storage, study, ticket)

    trial.suggest_float("a", 0, 1)
    trial.suggest_int("b", 1, 5)
    before = seen_by_others(url)[0].params
    storage.flush(trial._trial_id)

    assert before == {}
    assert seen_by_others(url)[0].params == trial.params
    assert set(trial.params) == {"a", "b"}


def test_the_first_attribute_is_written_with_the_trial(storage, study, ticket, url):
    begin(storage, study, ticket)

    assert seen_by_others(url)[0].user_attrs == {"prune_reason": "-"}


def test_attributes_come_in_the_order_of_writing_wherever_their_rows_lie(
    storage, study, ticket, url
):
    trial = begin(storage, study, ticket)
    for name in "zyxwv":
        trial.set_user_attr(name, 1)
    study.tell(trial, 0.0)

    with connect(url).begin() as connection:
        # A row that is updated is written anew, behind the others.
        connection.exec_driver_sql(
            "UPDATE trial_user_attributes SET value_json = '2' WHERE key IN ('prune_reason', 'y')"
        )

    assert list(seen_by_others(url)[0].user_attrs) == ["prune_reason", *"zyxwv"]


def test_a_trial_ends_together_with_what_belongs_to_it(storage, study, tickets, ticket, url):
    trial = begin(storage, study, ticket)
    trial.suggest_float("a", 0, 1)
    trial.set_user_attr("note", "kept until the end")

    study.tell(trial, 1.5)

    ended = seen_by_others(url)[0]
    assert (ended.state, ended.value) == (TrialState.COMPLETE, 1.5)
    assert ended.params == trial.params
    assert ended.user_attrs["note"] == "kept until the end"
    assert tickets.count() == Budget(complete=1)
    assert tickets.live() == []


def test_ending_a_trial_again_after_a_lost_answer_changes_nothing(
    storage, study, tickets, ticket, url
):
    trial = begin(storage, study, ticket)
    storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)
    ended = seen_by_others(url)[0].datetime_complete
    storage.hold(ticket)

    storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)

    again = seen_by_others(url)[0]
    assert (again.state, again.datetime_complete) == (TrialState.PRUNED, ended)
    assert tickets.count() == Budget(pruned=1)


def test_a_worker_that_lost_its_trial_writes_nothing_more(storage, study, tickets, ticket, url):
    trial = begin(storage, study, ticket)
    tickets.release(ticket.run_uid)

    trial.report(1.0, 1)
    for write in (
        lambda: study.tell(trial, 1.0),
        lambda: storage.flush(trial._trial_id),
        lambda: storage.flush_at_once(trial._trial_id),
    ):
        with pytest.raises(LeaseLost):
            write()

    left = seen_by_others(url)[0]
    assert left.state == TrialState.RUNNING
    assert left.intermediate_values == {}


def test_without_a_fence_it_is_the_storage_that_any_optuna_program_opens(storage, study, url):
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=5)

    assert [t.state for t in seen_by_others(url)] == [TrialState.COMPLETE] * 5
    assert all(t.params for t in seen_by_others(url))


@pytest.mark.acceptance
def test_an_empty_database_is_prepared_by_many_at_once(empty_url):
    # Forks: new interpreters would import what this one has. All begin at once.
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(6)

    def prepare() -> None:
        gate.wait()
        engine = connect(empty_url)
        create_tables(engine)
        open_storage(engine).get_all_studies()

    # Without the lock 11 of 12 fail; on two cores six processes overlap well enough.
    processes = [context.Process(target=prepare) for _ in range(6)]

    for process in processes:
        process.start()
    for process in processes:
        process.join(HANGS_S)

    assert [process.exitcode for process in processes] == [0] * 6


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:secret@h/d", "write 'postgresql+psycopg2://u:***@h/d'"),
        ("postgres://u:secret@h/d", "write 'postgresql+psycopg2://u:***@h/d'"),
        ("sqlite:///x.db", "not a PostgreSQL database"),
        ("mysql://u:secret@h/d", "not a PostgreSQL database"),
        ("no url at all", "cannot be read"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_its_password(given, expected):
    with pytest.raises(ConfigurationError) as refused:
        parse_url(given)

    assert expected in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_url_that_cannot_be_read_is_not_shown():
    with pytest.raises(ConfigurationError) as refused:
        parse_url("host=h password = secret")

    assert "secret" not in str(refused.value)


def test_a_password_is_masked_even_where_the_url_cannot_be_parsed():
    assert "secret" not in mask("postgres:://u:secret@h:x/d")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://u@h/d?password=secret",
        "postgresql+psycopg2://u:p@secret@h/d",
        "postgresql+psycopg2://u:p\nsecret@h/d",
        "postgresql+psycopg2://u:p/secret@h/d",
        "postgresql+psycopg2://u@corp:secret@h/d",
        "postgresql+psycopg2://u@corp:secret@h:abc/d",
        "postgresql+psycopg2://u:secret@h/d?sslmode=require",
    ],
)
def test_a_password_is_masked_wherever_it_stands(url):
    assert "secret" not in mask(url)
    assert "***" in mask(url)


def test_a_trial_whose_creations_answer_was_lost_is_not_created_twice(storage, study, ticket, url):
    first = begin(storage, study, ticket)

    again = begin(storage, study, ticket)

    assert again._trial_id == first._trial_id
    assert len(seen_by_others(url)) == 1


def test_a_dead_host_is_reported_in_time():
    with pytest.raises(StorageError, match="does not answer"):
        connect("postgresql+psycopg2://u:secret@127.0.0.1:1/d")


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> int:
    """A program whose tables are one version later, which the migrations reach."""
    later = SCHEMA_VERSION + 1
    statement = "ALTER TABLE hpo.tickets ADD COLUMN IF NOT EXISTS added integer DEFAULT 7"
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", later)
    monkeypatch.setattr(migrations, "MIGRATIONS", {later: (statement,)})
    return later


def test_tables_of_an_earlier_version_are_brought_along_with_what_they_hold(url, next_version):
    engine, uid = connect(url), str(uuid.uuid4())
    tickets = Tickets(engine, uid)
    tickets.grow(2)

    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda _: create_tables(connect(url)), range(4)))

    assert look(engine).version == next_version
    assert tickets.count().open == 2
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT sum(added) FROM hpo.tickets").scalar() == 14


def test_tables_are_not_changed_under_workers_of_an_earlier_version(url, next_version):
    engine = connect(url)
    tickets = Tickets(engine, str(uuid.uuid4()))
    tickets.grow(1)
    assert tickets.take(worker="w", slot="cpu:0") is not None

    with pytest.raises(StorageError, match="end their run with Ctrl-C"):
        create_tables(engine)

    assert look(engine).version == SCHEMA_VERSION


def test_tables_of_before_the_first_release_are_refused_and_left_alone(url):
    engine = connect(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE hpo.schema_version SET version = 3")

    with pytest.raises(StorageError, match="version 3, of before the first release"):
        create_tables(engine)

    assert look(engine).version == 3


def test_tables_of_a_later_version_are_left_alone(url):
    engine = connect(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE hpo.schema_version SET version = 99")

    with pytest.raises(StorageError, match="version 99"):
        create_tables(engine)
