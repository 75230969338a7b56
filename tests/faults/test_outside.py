"""Trials that other Optuna programs end, delete or enqueue: the study goes on, to N trials."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.database.connection import connect
from hpo.study.study import open_study
from hpo.tickets.budget import Budget, Tickets
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Command, Program
from tests.support.studies import Held, trials

pytestmark = pytest.mark.acceptance

VALID = {"lr": 0.05, "curvature": 1.0}


def flags(held: Held, *more: str, n: int = 4) -> tuple[str, ...]:
    return (
        *("--objective", str(held.path), "--study_name", "s", "--n_trials", str(n)),
        *("--epochs_per_trial", "12", "--workers", "1", "--pruner", "none", "--space", "narrow"),
        *more,
    )


def budget(url: str) -> Budget:
    db = connect(url)
    return Tickets(db, open_study(db, "s").uid).count()


def other_program(url: str) -> optuna.Study:
    """The study as a notebook opens it."""
    return optuna.load_study(study_name="s", storage=url)


def delete_trial(url: str, number: int) -> None:
    """Delete a trial as a clean-up script does: row by row, in SQL."""
    with connect(url).begin() as connection:
        trial_id = connection.exec_driver_sql(
            f"SELECT trial_id FROM trials WHERE number = {number}"
        ).scalar_one()
        for table in ("params", "values", "user_attributes", "system_attributes"):
            connection.exec_driver_sql(f"DELETE FROM trial_{table} WHERE trial_id = {trial_id}")
        connection.exec_driver_sql(
            f"DELETE FROM trial_intermediate_values WHERE trial_id = {trial_id}"
        )
        connection.exec_driver_sql(f"DELETE FROM trials WHERE trial_id = {trial_id}")


@contextmanager
def held_in_the_second_trial(
    program: Program, held: Held, *more: str
) -> Iterator[subprocess.Popen[str]]:
    """A run of four trials that is in the middle of its second one."""
    held.hold(2)
    process = program.start(*flags(held, *more))
    wait_until(held.is_holding)
    yield process
    held.let_go()


def ended_well(process: subprocess.Popen[str]) -> str:
    """What a run said on its way to exit code 0."""
    out, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, err
    assert "another takes over" not in err
    return out + err


@pytest.mark.parametrize("state", ["FAIL", "COMPLETE", "PRUNED"])
def test_a_running_trial_that_another_program_ends_is_dropped_and_its_ticket_ends_with_it(
    program: Program, command: Command, url: str, held: Held, state: str
):
    with held_in_the_second_trial(program, held) as process:
        value = -1000.0 if state == "COMPLETE" else None
        other_program(url).tell(1, value, state=TrialState[state])
    said = ended_well(process)
    again = command(*flags(held))
    status, best = command("status"), command("best")

    found = trials(url, "s")
    assert [trial.number for trial in found] == [0, 1, 2, 3]
    assert found[1].state == TrialState[state]
    assert found[1].user_attrs["prune_detail"] == "ended from outside"
    assert found[1].user_attrs["prune_reason"] == ("outside" if state == "PRUNED" else "-")
    assert all(t.state == TrialState.COMPLETE for t in found if t.number != 1)
    assert budget(url) == Budget(
        complete=3 + (state == "COMPLETE"),
        pruned=int(state == "PRUNED"),
        failed=int(state == "FAIL"),
    )
    assert "all of its trials are done" in again.stderr
    # A value that was told is shown as such, and is not the best.
    remark = "trial 1 has -1000, told from outside: it is left out"
    texts = (said, status.stdout, best.stderr)
    assert [remark in text for text in texts] == [state == "COMPLETE"] * 3
    assert "best trial  1 " not in said
    assert ("1 outside" in status.stdout) == (state == "PRUNED")


def test_a_running_trial_that_another_program_deletes_is_given_out_anew(
    program: Program, url: str, held: Held
):
    with held_in_the_second_trial(program, held) as process:
        delete_trial(url, 1)
    ended_well(process)

    found = trials(url, "s")
    assert [(t.number, t.state) for t in found] == [(n, TrialState.COMPLETE) for n in range(4)]
    assert budget(url) == Budget(complete=4)
    # The default, the deleted one, which began twice, and two more.
    assert held.built == 5


@pytest.mark.parametrize("fate", ["ended", "deleted"])
def test_a_trial_that_goes_between_two_runs_stops_neither_the_next_run_nor_its_ticket(
    program: Program, url: str, held: Held, fate: str
):
    with held_in_the_second_trial(program, held) as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HANGS_S)
    if fate == "ended":
        other_program(url).tell(1, state=TrialState.FAIL)
    else:
        delete_trial(url, 1)

    ended_well(program.start(*flags(held)))

    assert process.returncode == 130
    assert len(trials(url, "s")) == 4
    failed = int(fate == "ended")
    assert budget(url) == Budget(complete=4 - failed, failed=failed)


def test_a_trial_that_another_program_enqueues_takes_the_next_free_ticket(
    program: Program, url: str, held: Held
):
    with held_in_the_second_trial(program, held) as process:
        other_program(url).enqueue_trial(VALID)
        other_program(url).enqueue_trial({"lr": 0.07}, user_attrs={"from": "a colleague"})
    ended_well(process)

    found = trials(url, "s")
    assert [t.state for t in found] == [TrialState.COMPLETE] * 4
    assert found[2].params == VALID
    assert found[3].params["lr"] == 0.07
    assert found[3].user_attrs["from"] == "a colleague"
    assert budget(url) == Budget(complete=4)
    assert all(t.user_attrs["prune_reason"] == "-" for t in found)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (
            {"lr": 1e9},
            "lr=1000000000.0 is not within the search space, where it is 0.001 to 0.1",
        ),
        ({"momentum": 0.9}, "the search space has no parameter 'momentum'"),
    ],
)
def test_an_enqueued_value_outside_of_the_space_fails_its_trial_by_name(
    program: Program, url: str, held: Held, params: dict[str, float], says: str
):
    with held_in_the_second_trial(program, held) as process:
        other_program(url).enqueue_trial(params)
    ended_well(process)

    failed = [trial for trial in trials(url, "s") if trial.state == TrialState.FAIL]
    assert [trial.number for trial in failed] == [2]
    assert says in failed[0].user_attrs["prune_detail"]
    assert budget(url) == Budget(complete=3, failed=1)


def test_an_added_trial_is_not_counted_and_is_not_the_best(
    program: Program, command: Command, url: str, held: Held
):
    with held_in_the_second_trial(program, held) as process:
        study = other_program(url)
        distributions = study.trials[0].distributions
        study.add_trial(
            optuna.trial.create_trial(params=VALID, distributions=distributions, value=-5.0)
        )
    ended_well(process)
    best = command("best", "--json")

    found = trials(url, "s")
    assert len(found) == 5
    assert budget(url) == Budget(complete=4)
    assert '"left_out": "trial 2 has -5, told from outside: it is left out"' in best.stdout
    assert '"trial": 2' not in best.stdout


def test_a_waiting_trial_that_another_program_ends_is_left_to_it(
    program: Program, url: str, held: Held
):
    with held_in_the_second_trial(program, held) as process:
        study = other_program(url)
        study.enqueue_trial(VALID)
        waiting = next(t for t in study.trials if t.state == TrialState.WAITING)
        # optuna-dashboard fails a waiting trial so, and Optuna refuses to tell it.
        study._storage.set_trial_state_values(waiting._trial_id, TrialState.FAIL)
    ended_well(process)

    found: list[FrozenTrial] = trials(url, "s")
    assert [t.state.name for t in found] == ["COMPLETE", "COMPLETE", "FAIL", *["COMPLETE"] * 2]
    assert budget(url) == Budget(complete=4)
