"""An earlier version's study goes on, and its saved steps and weights are read.

`tests/data/a6cd77b` holds what that commit wrote, the last one before the modules moved into
packages: a dump of a database, a trial's checkpoint, a diverged step, a finished training.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import psycopg2
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from hpo.refit import weights
from objectives import load
from tests.support.program import ROOT, Command, Program, environment
from tests.support.studies import FRAGILE
from tests.support.toys import CPU

LEFT = ROOT / "tests" / "data" / "a6cd77b"
STUDY_UID = "db8dc856-9b9e-4301-95d4-3195e123348c"
# The attempt that was interrupted: epochs 0 to 12 of 30, at step 60 of 150.
INTERRUPTED = "91e54756-e9fd-4618-877e-282ad5c5776a"


def trials(url: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name="begun", storage=url).get_trials()


@pytest.mark.acceptance
def test_a_study_that_it_began_goes_on_where_it_was(empty_url: str, tmp_path: Path):
    connection = psycopg2.connect(empty_url.replace("+psycopg2", ""))
    with connection, connection.cursor() as cursor:
        cursor.execute((LEFT / "begun.sql").read_text())
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / STUDY_UID).mkdir(parents=True)
    shutil.copy(LEFT / "trial_00001.pt", checkpoints / STUDY_UID)
    before = trials(empty_url)

    ran = Program(empty_url, tmp_path / "home")(
        *("run", "--study_name", "begun", "--workers", "1"),
        *("--checkpoint_dir", str(checkpoints)),
    )

    assert ran.returncode == 0, ran.stderr
    assert "2 of 2 trials done" in ran.stderr
    ended = trials(empty_url)
    assert [trial.state for trial in ended] == [TrialState.COMPLETE] * 2
    assert [trial.params for trial in ended] == [trial.params for trial in before]
    assert ended[0].value == -4.435604029607716
    # What that version reached in one go; sums of floats differ from machine to machine.
    assert ended[1].value == pytest.approx(-4.873184276938687, abs=1e-3)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_uid, epoch FROM hpo.metrics WHERE ticket = 2 ORDER BY epoch")
        rows = [(str(run_uid) == INTERRUPTED, epoch) for run_uid, epoch in cursor.fetchall()]
    connection.close()
    # No epoch was trained twice, and none was left out.
    assert rows == [(epoch <= 12, epoch) for epoch in range(31)]


def test_a_step_that_it_saved_replays_to_the_verdict_that_it_recorded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    command = Command(environment(None, tmp_path), capsys)

    shown = command("replay", str(LEFT / "step.pt"), "--objective", FRAGILE)

    assert shown.returncode == 0, shown.stderr
    assert "grad_nonfinite, as recorded" in shown.stdout
    assert "gradient of 'root' is NaN in 'net.weight'" in shown.stdout


def test_weights_that_it_trained_are_the_network_that_it_measured():
    found = weights.read(weights.locate(LEFT / "training"))

    task = weights.restore(found, CPU, load(found.about["study"]["objective"]))
    with torch.no_grad():
        figures = task.validate()

    # The frozen validation set is drawn again; sums of floats differ from machine to machine.
    assert figures["J_db"] == pytest.approx(found.metrics["J_db"], abs=1e-3)
    assert found.metrics["J_db"] == pytest.approx(-6.204629007189152, abs=1e-12)
