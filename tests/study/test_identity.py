"""A study's identity: copies by Optuna, renames in the dashboard, deletions; during runs, too."""

from __future__ import annotations

import json
import signal
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.dashboard.server import make_dashboard
from hpo.database.connection import connect
from hpo.database.schema import checkpoints, environments, identities, metrics, predictions, tickets
from hpo.database.storage import open_storage
from hpo.errors import RunFailed
from hpo.study import study
from hpo.study.config import StudyConfig
from hpo.study.status import status
from hpo.tickets import orders
from hpo.tickets.budget import Budget, Tickets
from tests.study.test_whole_study import CONFIG, dump
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Command, Program
from tests.support.studies import STUDY, Held, trials

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@contextmanager
def dashboard(url: str) -> Iterator[str]:
    """The address of a dashboard that answers real requests."""
    server = make_dashboard(url, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(url: str, method: str, path: str, body: dict[str, Any]) -> None:
    """Send a request to the dashboard of a database."""
    with dashboard(url) as address:
        request = urllib.request.Request(
            f"{address}/api/studies/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status in (201, 204)


def rename(url: str, name: str, to: str) -> None:
    """Rename a study in the dashboard; its deletion does nothing if a worker writes meanwhile."""
    for _ in range(20):
        ask(url, "POST", f"{id_of(url, name)}/rename", {"study_name": to})
        if names(url) == {to}:
            return
        optuna.delete_study(study_name=to, storage=url)
    raise AssertionError("the dashboard never deleted the study of the former name")


def id_of(url: str, name: str) -> int:
    return optuna.load_study(study_name=name, storage=url)._study_id


def uid_of(url: str, name: str) -> str:
    return optuna.load_study(study_name=name, storage=url).user_attrs["study_uid"]


def names(url: str) -> set[str]:
    return set(optuna.get_all_study_names(url))


def copied(url: str, name: str, to: str) -> None:
    optuna.copy_study(from_study_name=name, from_storage=url, to_storage=url, to_study_name=to)


def rows(url: str, table: sa.Table, uid: str) -> list[Any]:
    statement = sa.select(table).where(table.c.study_uid == uid)
    with connect(url).connect() as connection:
        return connection.execute(statement.order_by(*table.primary_key)).all()


def budget(url: str, uid: str) -> list[tuple[str, int | None]]:
    """State and trial of each ticket."""
    return [(row.state, row.trial_number) for row in rows(url, tickets, uid)]


def opened(url: str, name: str = "a") -> study.OpenStudy:
    return study.open_study(connect(url), name)


def begin(url: str, total: int = 4) -> study.OpenStudy:
    """A study 'a' with a budget, of which a trial is complete, one failed, and one is running."""
    found = study.create(open_storage(connect(url)), "a", StudyConfig.from_stored(CONFIG))
    Tickets(connect(url), found.uid).grow(total)
    for state in (TrialState.COMPLETE, TrialState.FAIL, None):
        work(found, state)
    return found


def work(found: study.OpenStudy, state: TrialState | None) -> Any:
    """Begin the next ticket's trial, and end it unless the state is None; return the ticket."""
    storage = found.storage
    ticket = Tickets(storage.engine, found.uid).take(worker="w", slot="cpu:0")
    storage.hold(ticket)
    attributes = {"prune_reason": "-", "run_uid": ticket.run_uid}
    trial_id = storage.create_trial(found.study_id, user_attrs=attributes, system_attrs={})
    if state is not None:
        end(found, ticket, trial_id, state)
    storage.hold(None)
    return ticket, trial_id


def end(found: study.OpenStudy, ticket: Any, trial_id: int, state: TrialState) -> None:
    found.storage.hold(ticket)
    values = [1.0] if state == TrialState.COMPLETE else None
    found.storage.set_trial_state_values(trial_id, state, values)


def test_a_copy_gets_a_uid_and_tickets_of_its_own_and_the_original_keeps_its_own(url: str):
    original = begin(url)
    copied(url, "a", "b")
    # The original goes on before anybody works on its copy, in which another program adds a trial.
    optuna.load_study(study_name="b", storage=url).add_trial(optuna.trial.create_trial(value=9.0))
    work(original, TrialState.COMPLETE)
    before = budget(url, original.uid)

    copy = study.claimed(opened(url, "b"))

    assert before == [("complete", 0), ("failed", 1), ("leased", 2), ("complete", 3)]
    assert budget(url, original.uid) == before
    assert copy.uid != original.uid
    assert copy.uid == uid_of(url, "b")
    assert budget(url, copy.uid) == [("complete", 0), ("failed", 1), ("open", None), ("open", None)]
    closed = trials(url, "b")[2]
    assert closed.state == TrialState.FAIL
    assert closed.user_attrs["prune_detail"] == "was running when the study was copied"
    assert closed.user_attrs["prune_reason"] == "-"
    # Optuna's times are naive UTC, as the database's clock says.
    age = datetime.now(UTC).replace(tzinfo=None) - closed.datetime_complete
    assert abs(age) < timedelta(minutes=5)
    assert trials(url, "a")[2].state == TrialState.RUNNING


def test_claiming_again_changes_nothing(url: str):
    begin(url)
    copied(url, "a", "b")
    first = study.claimed(opened(url, "b"))
    study.claimed(opened(url))
    before = dump(url)

    again = study.claimed(opened(url, "b"))
    study.claimed(opened(url))

    assert again.uid == first.uid
    assert dump(url) == before


def test_of_eight_that_claim_a_copy_at_once_all_get_the_same_uid(url: str):
    original = begin(url)
    copied(url, "a", "b")
    barrier = threading.Barrier(8)

    def claim(_: int) -> str:
        found = opened(url, "b")
        barrier.wait()
        return study.claimed(found).uid

    with ThreadPoolExecutor(8) as pool:
        uids = set(pool.map(claim, range(8)))

    assert len(uids) == 1
    assert original.uid not in uids
    (uid,) = uids
    assert len(budget(url, uid)) == 4
    with connect(url).connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(identities)) == 2


def test_a_connection_that_breaks_while_a_copy_is_parted_leaves_it_whole(url: str):
    begin(url)
    copied(url, "a", "b")
    found = opened(url, "b")
    waits = sa.text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND query LIKE '%trial_user_attributes%'"
    )
    db = connect(url)
    watcher = db.connect().execution_options(isolation_level="AUTOCOMMIT")
    with ThreadPoolExecutor(1) as pool, watcher, db.begin() as connection:
        # Its tickets are written by then.
        connection.execute(sa.text("LOCK TABLE trial_user_attributes IN SHARE MODE"))
        claimed = pool.submit(study.claimed, found)
        wait_until(lambda: watcher.scalar(waits) or claimed.done())
        first = watcher.scalar(waits)
        assert first is not None
        watcher.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": first})
        wait_until(lambda: watcher.scalar(waits) not in (None, first))
        written = connection.scalar(sa.text("SELECT count(*) FROM hpo.tickets"))
        connection.rollback()
        copy = claimed.result(timeout=60)

    assert written == 4
    assert len(budget(url, copy.uid)) == 4
    with db.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM hpo.tickets")) == 8


def test_a_copy_of_a_copy_is_parted_from_it(url: str):
    begin(url)
    copied(url, "a", "b")
    # One before and one after its source got a uid of its own.
    copied(url, "b", "c")
    b = study.claimed(opened(url, "b"))
    copied(url, "b", "d")

    c, d = (study.claimed(opened(url, name)) for name in "cd")

    assert len({uid_of(url, name) for name in "abcd"}) == 4
    for found in (b, c, d):
        assert [state for state, _ in budget(url, found.uid)] == [
            *("complete", "failed", "open", "open")
        ]
    # In 'd' the trial that 'b' closed is a failed one that no ticket has.
    assert [trial.state.name for trial in trials(url, "d")] == ["COMPLETE", "FAIL", "FAIL"]


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_copy_of_before_version_5_is_known_by_its_later_id(url: str, first: str):
    original = begin(url)
    copied(url, "a", "b")
    with connect(url).begin() as connection:
        connection.execute(identities.delete())
    before = budget(url, original.uid)

    found = {name: study.claimed(opened(url, name)) for name in (first, "b", "a")}

    assert found["a"].uid == original.uid
    assert found["b"].uid != original.uid
    assert budget(url, original.uid) == before
    assert [row.study_id for row in rows(url, identities, original.uid)] == [original.study_id]


def test_a_copy_from_another_database_counts_the_trials_that_it_took_along(
    url: str, empty_url: str
):
    begin(url)
    optuna.copy_study(from_study_name="a", from_storage=url, to_storage=empty_url)
    # Another program's trial takes no ticket.
    optuna.load_study(study_name="a", storage=empty_url).add_trial(
        optuna.trial.create_trial(value=2.0)
    )

    found = study.claimed(opened(empty_url))

    assert budget(empty_url, found.uid) == [("complete", 0), ("failed", 1)]
    assert [trial.state.name for trial in trials(empty_url, "a")] == [
        *("COMPLETE", "FAIL", "FAIL", "COMPLETE")
    ]


def test_a_copy_keeps_figures_predictions_and_saved_steps_without_its_original(
    finished: Callable[[str], Program], capsys: pytest.CaptureFixture[str]
):
    for name, of, asked in (
        ("quadratic", STUDY, ("best", "--json")),
        ("diverged_batch", "s", ("replay", "0")),
    ):
        program = finished(name)
        url, command = program.environment["HPO_STORAGE"], Command(program.environment, capsys)
        before = command(*asked, "--study_name", of)
        copied(url, of, "b")
        original = uid_of(url, of)

        copy = study.claimed(opened(url, "b"))
        deleted = command("delete", "--study_name", of, "--yes")
        left = command("gc", "--json")
        after = command(*asked, "--study_name", "b")

        assert before.returncode == deleted.returncode == left.returncode == 0, before.stderr
        assert after.returncode == 0, after.stderr
        assert copy.uid != original
        assert names(url) == {"b"}
        figures = [line for line in before.stdout.splitlines() if "run_uid" not in line]
        assert [
            line.replace('"b"', f'"{of}"')
            for line in after.stdout.splitlines()
            if "run_uid" not in line
        ] == figures
        assert rows(url, metrics, original) == []
        assert len(rows(url, environments, copy.uid)) == 1
        if name == "quadratic":
            assert json.loads(after.stdout)["figures"]


def test_a_renamed_study_keeps_uid_and_budget_and_is_found_by_who_knew_it(url: str):
    original = begin(url)
    before = budget(url, original.uid)

    rename(url, "a", "b")
    followed = study.refreshed(original)

    assert (followed.name, followed.uid) == ("b", original.uid)
    assert followed.study_id == id_of(url, "b") != original.study_id
    assert budget(url, original.uid) == before
    assert [trial.state.name for trial in trials(url, "b")] == ["COMPLETE", "FAIL", "RUNNING"]
    # The dashboard's rename leaves it behind.
    assert followed.load().metric_names == ["distance"]
    with pytest.raises(KeyError):
        original.load()


def test_a_study_that_is_renamed_back_is_itself_whether_anybody_looked_in_between(url: str):
    original = begin(url)
    rename(url, "a", "b")
    rename(url, "b", "a")
    back = study.refreshed(original)
    rename(url, "a", "b")
    there = study.refreshed(back)
    rename(url, "b", "a")

    again = study.refreshed(there)

    assert [one.name for one in (back, there, again)] == ["a", "b", "a"]
    assert {one.uid for one in (back, there, again)} == {original.uid}
    assert again.load().trials[0].value == 1.0


def test_an_older_copy_is_not_taken_for_the_renamed_study(url: str):
    original = begin(url)
    copied(url, "a", "backup")
    work(original, TrialState.COMPLETE)
    # This one is as large as the renamed study.
    copied(url, "a", "another")
    copied(url, "a", "b")
    optuna.delete_study(study_name="a", storage=url)

    assert study.refreshed(original).name == "b"
    found = {name: study.claimed(opened(url, name)) for name in ("backup", "another")}
    assert len({original.uid, *(one.uid for one in found.values())}) == 3
    assert budget(url, found["backup"].uid)[3] == ("open", None)
    assert budget(url, found["another"].uid)[3] == ("complete", 3)


def test_a_copy_that_takes_its_originals_place_gives_each_trial_its_own_number(url: str):
    original = begin(url, total=8)
    copied(url, "a", "b")
    copy = optuna.load_study(study_name="b", storage=url)
    for _ in range(4):
        copy.add_trial(optuna.trial.create_trial(value=9.0))
    # These have later ids than all trials of the copy.
    for _ in range(2):
        work(original, TrialState.COMPLETE)

    optuna.delete_study(study_name="a", storage=url)
    found = study.claimed(opened(url, "b"))
    work(found, TrialState.COMPLETE)

    numbers = [trial.number for trial in trials(url, "b")]
    assert found.uid == original.uid
    assert sorted(set(numbers)) == sorted(numbers) == list(range(8))


def test_what_ended_or_began_while_a_study_was_renamed_is_trained_again(url: str):
    original = study.create(open_storage(connect(url)), "a", StudyConfig.from_stored(CONFIG))
    Tickets(connect(url), original.uid).grow(5)
    work(original, TrialState.COMPLETE)
    ticket, trial_id = work(original, None)
    work(original, None)
    # A rename is a copy, then a deletion; this is what workers do between the two.
    copied(url, "a", "b")
    end(original, ticket, trial_id, TrialState.COMPLETE)
    work(original, TrialState.PRUNED)
    optuna.delete_study(study_name="a", storage=url)

    found = study.claimed(opened(url, "b"))

    assert found.uid == original.uid
    assert budget(url, found.uid) == [
        *(("complete", 0), ("open", 1), ("leased", 2), ("open", None), ("open", None))
    ]


def test_a_rerun_that_began_while_a_study_was_renamed_leaves_the_first_trial_to_go_on(url: str):
    original = study.create(open_storage(connect(url)), "a", StudyConfig.from_stored(CONFIG))
    Tickets(connect(url), original.uid).grow(2)
    ticket, trial_id = work(original, None)
    copied(url, "a", "b")
    end(original, ticket.to_rerun(0), trial_id, TrialState.PRUNED)
    optuna.delete_study(study_name="a", storage=url)

    found = study.claimed(opened(url, "b"))

    assert [(row.trial_number, row.rerun_of) for row in rows(url, tickets, found.uid)] == [
        *((0, None), (None, None))
    ]


@pytest.mark.parametrize("is_renamed", [True, False])
def test_a_copy_and_a_renamed_study_fit_their_trials_after_a_deleted_one(
    url: str, is_renamed: bool
):
    original = study.create(open_storage(connect(url)), "a", StudyConfig.from_stored(CONFIG))
    Tickets(connect(url), original.uid).grow(5)
    work(original, TrialState.COMPLETE)
    ticket, trial_id = work(original, None)
    work(original, TrialState.PRUNED)
    delete_trial(url, trial_id)
    original.storage.settle(ticket, original.study_id)
    _, ended = work(original, TrialState.COMPLETE)
    first, trial_id = work(original, None)
    end(original, first.to_rerun(4), trial_id, TrialState.PRUNED)
    keep_predictions(original, 2, 3, 4)
    # A deleted trial's copy may be left, as it goes with the next sweep.
    keep_checkpoints(original, 1, 2, 4)
    delete_trial(url, ended)
    before = rows(url, tickets, original.uid)

    copied(url, "a", "b")
    if is_renamed:
        optuna.delete_study(study_name="a", storage=url)
    found = study.claimed(opened(url, "b"))

    assert [(row.state, row.trial_number, row.rerun_of) for row in before] == [
        *(("complete", 0, None), ("complete", 3, None), ("pruned", 2, None)),
        *(("leased", None, 4), ("open", None, None)),
    ]
    assert [
        (row.state, row.trial_number, row.rerun_of) for row in rows(url, tickets, found.uid)
    ] == [
        *(("complete", 0, None), ("complete", None, None), ("pruned", 1, None)),
        *(("leased" if is_renamed else "open", None, 2), ("open", None, None)),
    ]
    assert [trial.state.name for trial in trials(url, "b")] == ["COMPLETE", "PRUNED", "PRUNED"]
    # Of each trial the rows that it had before; 2 was the first one's number, and 4 the second's.
    kept = {row.trial_number: row.sample for row in rows(url, predictions, found.uid)}
    assert {number: kept[number] for number in (1, 2)} == {1: 2, 2: 4}
    kept = {row.trial_number: row.step for row in rows(url, checkpoints, found.uid)}
    assert {number: kept[number] for number in (1, 2)} == {1: 2, 2: 4}
    # A copy of the copy starts from its numbers.
    copied(url, "b", "c")
    again = study.claimed(opened(url, "c"))
    assert [number for _, number in budget(url, again.uid)] == [0, None, 1, None, None]


def test_the_order_to_cancel_a_trial_follows_it_to_its_number_in_a_renamed_study(url: str):
    original = begin(url)
    delete_trial(url, trials(url, "a")[0]._trial_id)
    orders.cancel(original.storage.engine, original.uid, 2, study="a")
    copied(url, "a", "b")
    optuna.delete_study(study_name="a", storage=url)

    found = study.claimed(opened(url, "b"))

    of_tickets = [(row.trial_number, row.cancelled) for row in rows(url, tickets, found.uid)]
    assert of_tickets == [(None, None), (0, None), (1, 1), (None, None)]


def delete_trial(url: str, trial_id: int) -> None:
    """Delete a trial as the dashboard would, if it could."""
    with connect(url).begin() as connection:
        for table in ("trial_user_attributes", "trial_system_attributes", "trial_values", "trials"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE trial_id = {trial_id}")


def keep_predictions(found: study.OpenStudy, *numbers: int) -> None:
    """Keep one prediction of each trial, whose sample is the trial's number."""
    at = {"epoch": 1, "step": 1, "kind": "grid", "latency_s": 0.1, "run_uid": str(uuid.uuid4())}
    with found.storage.engine.begin() as connection:
        for number in numbers:
            row = {"study_uid": found.uid, "trial_number": number, "sample": number, **at}
            connection.execute(predictions.insert().values(row))


def keep_checkpoints(found: study.OpenStudy, *numbers: int) -> None:
    """Keep a copy of a checkpoint of each trial, whose step is the trial's number."""
    copy = {"attempt": 1, "part": 0, "size": 1, "sha256": "-", "body": b"-"}
    with found.storage.engine.begin() as connection:
        for number in numbers:
            row = {"study_uid": found.uid, "trial_number": number, "step": number, **copy}
            connection.execute(checkpoints.insert().values(row))


def test_two_that_create_a_study_at_once_have_one_uid(url: str):
    config, barrier = StudyConfig.from_stored(CONFIG), threading.Barrier(2)

    def create(_: int) -> str:
        storage = open_storage(connect(url))
        barrier.wait()
        return study.create(storage, "a", config).uid

    with ThreadPoolExecutor(2) as pool:
        uids = set(pool.map(create, range(2)))

    assert uids == {uid_of(url, "a")}


def test_the_name_of_a_deleted_study_that_is_given_again_is_another_study(url: str):
    original = begin(url)
    optuna.delete_study(study_name="a", storage=url)
    new = study.create(open_storage(connect(url)), "a", StudyConfig.from_stored(CONFIG))

    with pytest.raises(RunFailed, match=r"^study 'a' was deleted meanwhile$"):
        study.refreshed(original)
    with pytest.raises(KeyError):
        original.load()
    with pytest.raises(RunFailed, match=r"^study 'a' was deleted or renamed meanwhile$"):
        status(original, connect(url))
    with pytest.raises(RunFailed, match=r"^study 'a' was deleted meanwhile$"):
        study.claimed(original)

    assert new.uid != original.uid
    assert study.refreshed(new).study_id == new.study_id
    assert Tickets(connect(url), new.uid).count() == Budget()


def test_commands_that_read_show_a_copy_as_one_and_change_nothing(command: Command, url: str):
    begin(url)
    copied(url, "a", "b")
    before = dump(url)

    shown = command("status", "--study_name", "b")
    as_json = command("status", "--study_name", "b", "--json")
    listed = command("studies")
    of_original = command("status", "--study_name", "a")
    for name in ("best", "studies"):
        assert command(name, *(("--study_name", "b") if name == "best" else ())).returncode == 0

    assert shown.returncode == 0, shown.stderr
    assert "a copy of 'a' without a budget of its own" in shown.stdout
    assert "2 of 2 ended: 1 complete, 0 pruned, 1 failed; 0 running" in shown.stdout
    assert "worker" not in shown.stdout
    found = json.loads(as_json.stdout)
    assert (found["copy_of"], found["trials"]["total"], found["workers"]) == ("a", 2, [])
    assert "b (copy of a)" in listed.stdout
    assert "2 of 4" in of_original.stdout
    assert "copy" not in of_original.stdout
    assert dump(url) == before


@pytest.mark.acceptance
def test_an_original_and_its_copy_both_end_with_exactly_their_trials(
    program: Program, url: str, held: Held
):
    held.hold(3)
    run = program.start(*on(held, "a"), "--n_trials", "4")
    wait_until(held.is_holding)
    copied(url, "a", "b")
    # The copy's run goes on beside the original's.
    held.let_go()
    of_copy = program(*on(held, "b"))
    told = run.communicate(timeout=HANGS_S)[1]

    assert run.returncode == 0, told
    assert of_copy.returncode == 0, of_copy.stderr
    note = "'b' is a copy of study 'a': it goes on with a budget of its own"
    assert note in " ".join(of_copy.stderr.split())
    assert all(state in ("complete", "pruned") for state, _ in budget(url, uid_of(url, "a")))
    assert [t.state in ENDED for t in trials(url, "a")] == [True] * 4
    # Two were complete, one was closed, and two are new.
    there = trials(url, "b")
    assert [t.number for t in there if "copied" in t.user_attrs["prune_detail"]] == [2]
    assert [t.state in ENDED for t in there] == [True] * 5
    assert [number for _, number in budget(url, uid_of(url, "b"))] == [0, 1, 3, 4]
    # Both go on by themselves.
    more = program(*on(held, "b"), "--n_trials", "5")
    assert more.returncode == 0, more.stderr
    assert "budget of its own" not in more.stderr
    assert (len(trials(url, "a")), len(trials(url, "b"))) == (4, 6)


def on(held: Held, name: str) -> tuple[str, ...]:
    return (
        *("--objective", str(held.path), "--study_name", name, "--workers", "1"),
        *("--epochs_per_trial", "4"),
    )


@pytest.mark.acceptance
def test_a_run_goes_on_under_the_new_name_of_its_study(program: Program, url: str, held: Held):
    held.hold(3)
    run = program.start(*on(held, "a"), "--n_trials", "5")
    wait_until(held.is_holding)
    uid = uid_of(url, "a")

    rename(url, "a", "b")
    held.let_go()
    told = run.communicate(timeout=HANGS_S)[1]

    assert run.returncode == 0, told
    assert names(url) == {"b"}
    assert uid_of(url, "b") == uid
    assert [trial.state in ENDED for trial in trials(url, "b")] == [True] * 5
    assert budget(url, uid) == [
        (trial.state.name.lower(), trial.number) for trial in trials(url, "b")
    ]
    assert "5 of 5 trials done" in told


@pytest.mark.acceptance
def test_a_study_renamed_between_two_runs_goes_on_where_it_was(
    program: Program, url: str, held: Held
):
    held.hold(3)
    run = program.start(*on(held, "a"), "--n_trials", "4")
    wait_until(held.is_holding)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=HANGS_S)
    rename(url, "a", "b")
    before = trials(url, "b")
    held.let_go()

    ran = program(*on(held, "b"))

    assert ran.returncode == 0, ran.stderr
    assert "budget of its own" not in ran.stderr
    after = trials(url, "b")
    assert [trial.state in ENDED for trial in after] == [True] * 4
    # Those of before are as they were, and the interrupted one kept its configuration.
    assert after[:2] == before[:2]
    assert after[2].params == before[2].params


@pytest.mark.acceptance
def test_a_run_whose_study_is_deleted_ends_with_one_sentence(
    program: Program, url: str, held: Held, tmp_path: Path
):
    held.hold(2)
    run = program.start(*on(held, "a"), "--n_trials", "4")
    wait_until(held.is_holding)
    uid = uid_of(url, "a")

    for _ in range(20):
        # A deletion does nothing if a worker writes meanwhile.
        if names(url):
            ask(url, "DELETE", str(id_of(url, "a")), {})
    assert names(url) == set()
    held.let_go()
    told = run.communicate(timeout=HANGS_S)[1]

    assert run.returncode == 1, told
    assert told.strip().splitlines()[-1] == "hpo: study 'a' was deleted meanwhile"
    # A later run of this name is not harmed by what is left.
    assert budget(url, uid)
    again = program(*on(held, "a"), "--n_trials", "2")
    assert again.returncode == 0, again.stderr
    assert [trial.state in ENDED for trial in trials(url, "a")] == [True] * 2
    assert uid_of(url, "a") != uid
