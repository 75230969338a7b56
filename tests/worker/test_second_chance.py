"""A configuration that only its precision lost: pruned, or rerun once in a wider one."""

from __future__ import annotations

import json
import os
import signal

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.database.connection import connect
from hpo.study.study import open_study
from hpo.tickets.budget import Tickets
from tests.support.processes import children, wait_until
from tests.support.program import HANGS_S, ROOT, Command, Program

pytestmark = pytest.mark.acceptance
FRAGILE = str(ROOT / "tests" / "support" / "fragile.py")


def flags_of(*flags: str, n: int = 6, pause_s: float = 0.0) -> list[str]:
    return [
        *("--objective", FRAGILE, "--fault", "fp16", "--precision", "fp16", "--study_name", "s"),
        *("--n_trials", str(n), "--epochs_per_trial", "4", "--size", "tiny", "--pruner", "none"),
        *("--pause_s", str(pause_s), *flags),
    ]


def trials(url: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name="s", storage=url).get_trials()


def pairs(found: list[FrozenTrial]) -> list[tuple[FrozenTrial, FrozenTrial]]:
    """The trials that were rerun, each with its rerun."""
    reruns = [trial for trial in found if "rerun_of" in trial.user_attrs]
    return [(found[trial.user_attrs["rerun_of"]], trial) for trial in reruns]


def test_by_default_what_fp16_alone_loses_is_pruned(program: Program, command: Command, url: str):
    ran = program(*flags_of("--workers", "1"))
    status = command("status")

    assert ran.returncode == 0, ran.stderr
    found = trials(url)
    lost = [t for t in found if t.user_attrs["prune_reason"] == "precision_range"]
    assert len(found) == 6
    # The default configuration is one of them.
    assert 1 <= len(lost) < 6
    assert all(t.params["gain"] > 1e3 for t in lost)
    assert f"fp16 alone lost {len(lost)} configuration" in status.stdout
    assert "rerun" not in status.stdout


def test_a_rerun_repeats_the_configuration_on_the_same_ticket(
    program: Program, command: Command, url: str
):
    ran = program(*flags_of("--workers", "2", "--on_precision_range", "rerun"))
    status = json.loads(command("status", "--json").stdout)

    assert ran.returncode == 0, ran.stderr
    found = trials(url)
    assert pairs(found)
    for first, again in pairs(found):
        assert first.state == TrialState.PRUNED
        assert first.user_attrs["prune_reason"] == "precision_range"
        assert first.user_attrs["precision"] == "fp16"
        assert again.state == TrialState.COMPLETE
        assert again.params == first.params
        assert again.user_attrs["precision"] == "bf16"
        assert again.user_attrs["seed"] == first.user_attrs["seed"]
        assert next(iter(again.user_attrs)) == "prune_reason"
    # Six tickets, and one more trial for each that was rerun.
    assert len(found) == 6 + len(pairs(found))
    tickets = Tickets(connect(url), open_study(connect(url), "s").uid).count()
    assert (tickets.total, tickets.complete, tickets.pruned) == (6, 6, 0)
    assert status["lost_to_precision"] == {
        "precision": "fp16",
        "configurations": len(pairs(found)),
        "rerun": len(pairs(found)),
        "recovered": len(pairs(found)),
    }


def test_a_rerun_whose_worker_is_killed_goes_on_as_the_same_trial(program: Program, url: str):
    run = program.start(
        *flags_of("--workers", "1", "--on_precision_range", "rerun", n=1, pause_s=0.3)
    )
    wait_until(lambda: _has_study(url) and any(t.intermediate_values for (t,) in _reruns(url)))

    for worker in children(run.pid):
        os.kill(worker, signal.SIGKILL)
    _, errors = run.communicate(timeout=HANGS_S)

    assert run.returncode == 0, errors
    found = trials(url)
    assert [t.state for t in found] == [TrialState.PRUNED, TrialState.COMPLETE]
    ((first, again),) = pairs(found)
    assert again.params == first.params
    assert again.user_attrs["precision"] == "bf16"


def _has_study(url: str) -> bool:
    return "s" in optuna.get_all_study_names(url)


def _reruns(url: str) -> list[tuple[FrozenTrial]]:
    return [(again,) for _, again in pairs(trials(url))]
