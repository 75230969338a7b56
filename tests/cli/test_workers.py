"""`workers`, `pause` and `resume` on a run at work."""

from __future__ import annotations

import json
import threading

import pytest
from optuna.trial import TrialState

from hpo.database.schema import tickets
from tests.study.test_identity import begin, end, rows, work
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Command, Program
from tests.support.studies import Held, trials

pytestmark = pytest.mark.acceptance


def listed(command: Command) -> dict[str, dict]:
    return {one["slot"]: one for one in json.loads(command("workers", "--json").stdout or "[]")}


def test_a_trial_is_cancelled_a_study_paused_and_a_worker_drained(
    program: Program, command: Command, url: str, held: Held
):
    held.hold(*range(1, 50))
    process = program.start(
        *("--objective", str(held.path), "--study_name", "s", "--n_trials", "5"),
        *("--workers", "1", "--pruner", "none"),
    )
    wait_until(held.is_holding)
    first = listed(command)["cpu:0"]

    cancelled = command("workers", "--cancel", "0")
    held.hold(*range(1, 50))
    wait_until(held.is_holding)
    paused = command("pause", "s", "--now")
    twice = command("pause", "s")
    wait_until(lambda: listed(command)["cpu:0"]["is_idle"])
    status = command("status")
    resumed = command("resume")
    not_paused = command("resume")
    wait_until(lambda: not listed(command)["cpu:0"]["is_idle"])
    unknown = command("workers", "--drain", "nobody")
    ended = command("workers", "--cancel", "0")
    drained = command("workers", "--drain", first["worker"])
    held.let_go()
    _, err = process.communicate(timeout=HANGS_S)

    assert (first["trial"], first["launcher"], first["log"][-4:]) == (0, "local", ".log")
    assert "pruned, 'cancelled'" in cancelled.stdout
    assert "is paused: no trial begins" in paused.stdout
    assert "paused     study 's' is paused since" in status.stdout
    assert resumed.returncode == 0
    assert "leaves" in drained.stdout
    for wrong, text in {
        (twice, "is paused since"),
        (not_paused, "is not paused"),
        (unknown, f"there are {first['host']}, {first['worker']} (--drain)"),
        (ended, "has ended (pruned)"),
    }:
        assert (wrong.returncode, text in wrong.stderr) == (2, True), wrong.stderr
    # The paused trial went on from its checkpoint, and its worker left after it.
    assert process.returncode == 130
    assert "python -m hpo resume s" in err
    assert "worker cpu:0 has left" in err
    found = trials(url, "s")
    assert [one.user_attrs["prune_reason"] for one in found] == ["cancelled", "-"]
    assert [one.state.name for one in found] == ["PRUNED", "COMPLETE"]
    assert listed(command) == {}


@pytest.mark.parametrize(
    ("is_repeated", "said"),
    [
        (True, "before it heard of this, and another one repeats it"),
        (False, "pruned before it heard of this"),
    ],
)
def test_a_trial_that_ends_before_its_worker_heard_is_not_called_cancelled(
    command: Command, url: str, is_repeated: bool, said: str
):
    original = begin(url)
    ticket, trial_id = work(original, None)

    def end_once_cancelled() -> None:
        wait_until(lambda: any(row.cancelled for row in rows(url, tickets, original.uid)))
        own = ticket.to_rerun(3) if is_repeated else ticket
        end(original, own, trial_id, TrialState.PRUNED)

    thread = threading.Thread(target=end_once_cancelled)
    thread.start()
    cancelled = command("workers", "--study_name", "a", "--cancel", "3")
    thread.join()

    assert cancelled.returncode == 0
    assert said in cancelled.stdout
