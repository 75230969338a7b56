"""Reports of a trial while the database is away: kept, and stored when it is back."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial

from hpo.database.connection import connect
from hpo.database.schema import metrics
from hpo.embedded import server
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, ROOT, Program
from tests.support.studies import Held, trials

pytestmark = pytest.mark.acceptance


def epochs_trained(home: Path) -> int:
    """The number of the last epoch in the log of the only worker."""
    (log,) = home.rglob("worker*.log")
    return max((int(n) for n in re.findall(r"\| epoch (\d+)/", log.read_text())), default=0)


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_trial_trains_on_while_the_database_is_away_and_reports_afterwards(
    alone: Program, held: Held, is_interrupted: bool
):
    url = alone("url").stdout.strip()
    held.hold(1)
    command = (
        *("--objective", str(held.path), "--study_name", "s", "--n_trials", "2"),
        *("--epochs_per_trial", "12", "--workers", "1", "--pruner", "none", "--space", "narrow"),
    )
    process = alone.start(*command)
    wait_until(held.is_holding)

    server.stop(alone.home, immediate=True)
    before = epochs_trained(alone.home)
    wait_until(lambda: epochs_trained(alone.home) >= before + 3)
    if is_interrupted:
        # The checkpoint takes along what could not be written.
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HANGS_S)
        process = alone.start(*command)
    server.start(alone.home)
    held.let_go()
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    for trial in trials(url, "s"):
        assert list(trial.intermediate_values) == list(range(1, 13))
        assert trial.value == trial.intermediate_values[12]
    with connect(url).connect() as connection:
        rows = connection.execute(sa.select(metrics.c.ticket, metrics.c.epoch)).all()
    assert sorted(rows) == [(ticket, epoch) for ticket in (1, 2) for epoch in range(13)]
    # No trial began anew.
    assert held.built == 2 + is_interrupted


def long_epochs(program: Program, *flags: str) -> subprocess.Popen[str]:
    """A run of one trial, whose epochs take some seconds."""
    fragile = str(ROOT / "tests" / "support" / "fragile.py")
    return program.start(
        *("--objective", fragile, "--fault", "none", "--study_name", "s", "--n_trials", "1"),
        *("--size", "tiny", "--workers", "1", "--pause_s", "0.5", *flags),
    )


def test_a_report_is_stored_while_a_long_epoch_is_trained(program: Program, url: str):
    process = long_epochs(program, "--epochs_per_trial", "1", "--pruner", "none")

    def epochs() -> list[int]:
        with connect(url).connect() as connection:
            return list(connection.scalars(sa.select(metrics.c.epoch)))

    wait_until(epochs)
    seen = epochs()
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert seen == [0]
    assert sorted(epochs()) == [0, 1]


def test_others_see_the_rung_of_a_trial_while_its_next_epoch_is_trained(program: Program, url: str):
    process = long_epochs(program, "--epochs_per_trial", "2", "--pruner", "sha")

    def has_rung() -> bool:
        return any("completed_rung_0" in trial.system_attrs for trial in found())

    def found() -> list[FrozenTrial]:
        # The run creates the study a moment after its start.
        return trials(url, "s") if "s" in optuna.get_all_study_names(url) else []

    wait_until(has_rung)
    seen = found()[0].intermediate_values
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert list(seen) == [1]
