"""Studies of each network of the RIS objective, from their creation to the evaluation."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from objectives import ris_evaluation
from objectives.ris_evaluation import bench
from objectives.ris_networks.registry import MEASURED, NETWORKS
from tests.support.program import Command, Program

PLAIN = "ris_covariance-wide-unit"


def trials(url: str, name: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=url).get_trials()


def name_of(network: str) -> str:
    """The name of a study that was given none: without the network where it is that of `auto`."""
    return PLAIN if network == MEASURED["unit"][0] else f"{PLAIN}-{network}"


@pytest.mark.acceptance
@pytest.mark.parametrize("network", NETWORKS)
def test_a_study_of_a_network_is_run_resumed_copied_trained_and_evaluated(
    network: str,
    program: Program,
    command: Command,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    # Every table has its rows from few scenes as well.
    monkeypatch.setattr(bench, "QUICK_SCENES", 10)
    once = partial(ris_evaluation.milliseconds_per_scene, runs=1)
    monkeypatch.setattr(ris_evaluation, "milliseconds_per_scene", once)
    monkeypatch.setattr(ris_evaluation, "_TIMED", 4)
    name, out = name_of(network), str(tmp_path / "out")
    one = ("--workers", "1")
    flags = ("--size", "unit", "--network", network, "--epochs_per_trial", "1", *one)

    first = program(*flags, "--n_trials", "1")
    resumed = program("run", "--study_name", name, "--n_trials", "2", *one)
    copied = command("copy", "--study_name", name, "--to", url, "--as", "copy")
    trained = program("train", "--study_name", name, "--epochs", "1", "--seeds", "1", "--out", out)
    evaluated = command("evaluate", out, "--quick", "--json")

    for done in (first, resumed, copied, trained, evaluated):
        assert done.returncode == 0, done.stderr
    searched = set(NETWORKS[network].spaces["wide"])
    for study in (name, "copy"):
        found = trials(url, study)
        assert [trial.state for trial in found] == [TrialState.COMPLETE] * 2
        assert all(set(trial.params) == searched for trial in found)
    accuracy = json.loads(evaluated.stdout)["tables"]["accuracy"]
    assert any(row["method"].startswith("network") and row["ε"] < 1 for row in accuracy)


@pytest.mark.acceptance
def test_a_study_of_another_network_is_not_joined(program: Program, url: str):
    flags = ("--size", "unit", "--n_trials", "1", "--epochs_per_trial", "1", "--workers", "1")
    ran = program(*flags, "--network", "transformer")

    refused = program(*flags, "--study_name", name_of("transformer"), "--network", "hybrid")
    other = program(*flags, "--network", "hybrid")

    assert ran.returncode == other.returncode == 0, ran.stderr + other.stderr
    assert refused.returncode == 2
    assert "--network transformer (now hybrid)" in refused.stderr
    assert optuna.get_all_study_names(url) == [name_of("transformer"), name_of("hybrid")]
