"""`run`: what a study holds when it is done, what a later run changes, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support.program import Command, Program
from tests.support.studies import QUADRATIC, SLOW, STUDY, trials

ATTRIBUTES = [
    *("prune_reason", "prune_detail", "precision", "worker", "seconds", "gpu_seconds"),
    *("skipped_steps", "run_uid", "seed", "git_sha"),
]


@pytest.mark.acceptance
def test_a_run_ends_with_exactly_its_trials_and_a_larger_one_goes_on(
    executed: Program, program: Program, command: Command, url: str
):
    password = url.split(":")[2].split("@")[0]

    first = executed(*QUADRATIC, "--n_trials", "8", "--workers", "2", "--sampler", "auto")
    fewer = program(*QUADRATIC, "--n_trials", "5")
    more = program("run", "--study_name", STUDY, "--n-trials", "11", "--workers", "2")
    found = json.loads(command("best", "--json").stdout)

    assert (first.returncode, fewer.returncode, more.returncode) == (0, 0, 0), first.stderr
    assert "8 of 8 trials done" in first.stderr
    # A weight and its curvature are two numbers.
    assert "tpe, pruner" in first.stderr
    assert "resumed, 8 trials done" in fewer.stderr
    assert "has 8 trials already" in fewer.stderr
    assert "all of its trials are done" in fewer.stderr
    assert "11 of 11 trials done" in more.stderr
    ended = trials(url)
    assert len(ended) == 11
    assert {t.state for t in ended} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(t.value is None or math.isfinite(t.value) for t in ended)
    assert "best trial" in first.stdout
    assert "default configuration" in first.stdout
    assert "python -m hpo dashboard" in first.stdout
    best = optuna.load_study(study_name=STUDY, storage=url).best_trial
    assert (found["trial"], found["value"], found["params"]) == (
        *(best.number, best.value),
        best.params,
    )
    # Of all checkpoints the best one's is left.
    files = [path.name for path in (program.home / "checkpoints").rglob("*") if path.is_file()]
    assert files == [f"trial_{best.number:05d}-1.pt"]
    assert files[0] in more.stdout
    logs = list((program.home / "logs").rglob("*.log"))
    assert logs
    assert "***" in first.stdout
    for text in (first.stdout, first.stderr, *(log.read_text() for log in logs)):
        assert password not in text


def test_every_trial_is_explained_by_its_attributes(finished: Callable[[str], Program]):
    ended = trials(finished("quadratic").environment["HPO_STORAGE"])

    assert len(ended) == 12
    assert all(list(t.user_attrs) == ATTRIBUTES for t in ended)
    assert all(t.user_attrs["run_uid"] and t.user_attrs["worker"].endswith("cpu:0") for t in ended)
    diverged = [t for t in ended if t.user_attrs["prune_reason"].endswith("_nonfinite")]
    # A learning rate above 2 / curvature diverges: half of the space on its log scale.
    assert diverged
    for trial in ended:
        nonfinite = trial.system_attrs["constraints:nonfinite"]
        assert nonfinite == (1.0 if trial in diverged else 0.0)
        assert trial.value is None or abs(trial.value) < math.inf
    assert all("distance" in t.user_attrs["prune_detail"] for t in diverged)
    assert all(t.state == TrialState.PRUNED for t in diverged)


@pytest.mark.acceptance
def test_a_run_in_which_every_trial_fails_has_failed(program: Program, tmp_path: Path):
    path = tmp_path / "raising.py"
    path.write_text(SLOW.replace("time.sleep(0.02)", 'raise ValueError("always")'))

    ran = program("--objective", str(path), "--n_trials", "2", "--workers", "1")

    assert ran.returncode == 1
    assert "all 2 trials failed, the last with: ValueError: always" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_setting_that_differs_from_the_studys_is_refused_and_both_are_named(
    finished: Callable[[str], Program], capsys: pytest.CaptureFixture[str]
):
    command = Command(finished("quadratic").environment, capsys)

    refused = command(
        *("--objective", "quadratic", "--epochs_per_trial", "9", "--precision", "bf16"),
        *("--seed", "3", "--on_precision_range", "rerun"),
    )

    assert refused.returncode == 2
    for said in (
        *("--epochs_per_trial 4 (now 9)", "--precision fp32 (now bf16)", "--seed 0 (now 3)"),
        *("--on_precision_range prune (now rerun)", "--study_name", "--force"),
    ):
        assert said in refused.stderr
    assert "Traceback" not in refused.stderr
