"""Objectives that misbehave in each of their hooks, through the real program."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support.misbehaving import FINE, WRONG
from tests.support.program import ROOT, Command, Program

MISBEHAVING = (
    *("--objective", str(ROOT / "tests" / "support" / "misbehaving.py"), "--study_name", "m"),
    *("--epochs_per_trial", "2", "--workers", "1"),
)


def enqueue(path: Path, where: list[str]) -> tuple[str, str]:
    path.write_text(json.dumps([{"where": name} for name in where]))
    return "--enqueue", str(path)


@pytest.mark.acceptance
def test_each_failure_is_explained_and_the_study_goes_on(program: Program, url: str, tmp_path):
    # Between four failures a trial that ends well: five in a row would end the run.
    where = [*WRONG[:4], "memory", *WRONG[4:], "nan"]

    ran = program(
        *MISBEHAVING,
        *("--n_trials", str(len(where) + 1), "--export_csv", str(tmp_path / "trials.csv")),
        *enqueue(tmp_path / "where.json", where),
    )
    again = program(*MISBEHAVING, *enqueue(tmp_path / "where.json", where))

    assert ran.returncode == 0, ran.stderr
    trials = optuna.load_study(study_name="m", storage=url).get_trials()
    by_where = {trial.params["where"]: trial for trial in trials}
    assert trials[0].params["where"] == FINE
    assert f"{len(where)} configurations are tried next" in ran.stderr
    assert again.returncode == 0
    assert "all of them were there already" in again.stderr
    assert len(trials) == len(where) + 1
    for name in WRONG:
        trial = by_where[name]
        assert trial.state == TrialState.FAIL
        assert trial.value is None
        assert "misbehaving.py" in trial.user_attrs["traceback"] or name in ("missing", "text")
    for name in WRONG[:5]:
        assert by_where[name].user_attrs["prune_detail"] == f"ValueError: {name} is broken"
    assert "without the metric 'error'" in by_where["missing"].user_attrs["prune_detail"]
    assert "'good' for 'error', which is no number" in by_where["text"].user_attrs["prune_detail"]
    assert by_where["nan"].state == TrialState.PRUNED
    assert by_where["nan"].user_attrs["prune_reason"] == "metric_nonfinite"
    assert by_where["memory"].state == TrialState.PRUNED
    assert by_where["memory"].user_attrs["prune_reason"] == "oom"
    assert by_where["memory"].constraints == {"nonfinite": 1.0}
    assert f"{len(WRONG)} failed" in ran.stderr
    assert "1 oom" in ran.stderr
    assert "Traceback" not in ran.stderr
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["params_where"] for row in rows] == [trial.params["where"] for trial in trials]
    assert rows[5]["user_attrs_prune_reason"] == "oom"


@pytest.mark.acceptance
def test_five_failures_in_a_row_end_the_run_and_say_why(program: Program, url: str):
    ran = program(*MISBEHAVING, "--n_trials", "200", "--set", "where=loss")

    assert ran.returncode == 1
    # The fleet looks twice a second: how many more have failed by then is the machine's pace.
    told = re.search(r"(\d+) trials in a row failed", ran.stderr)
    assert told and 5 <= int(told[1]) < 100
    assert "ValueError: loss is broken" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr.strip().splitlines()[-1].startswith("hpo: ")
    trials = optuna.load_study(study_name="m", storage=url).get_trials()
    assert 5 <= len([trial for trial in trials if trial.state.is_finished()]) < 100


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no configuration"),
        ('{"nothing": 1}', "has no parameter 'nothing'"),
        ('{"where": "else"}', "is not within the search space"),
        ("[3]", "holds no configuration"),
    ],
)
def test_a_wrong_file_of_configurations_is_refused(command: Command, tmp_path, content, says):
    (tmp_path / "wrong.json").write_text(content)

    refused = command(*MISBEHAVING, "--enqueue", str(tmp_path / "wrong.json"))

    assert refused.returncode == 2
    assert says in refused.stderr
