"""A divergence is kept with its evidence, and replays to the same verdict anywhere."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial, TrialState

from hpo.dashboard.server import make_dashboard
from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.connection import connect
from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.errors import ConfigurationError
from hpo.guard import replay, saved_step
from hpo.guard.evidence import Divergence
from hpo.guard.verdict import Reading
from hpo.study.objective import source_hash
from hpo.task.build import build
from objectives import load
from tests.support.fragile import objective
from tests.support.program import Command, Program, environment
from tests.support.studies import FRAGILE
from tests.support.toys import CPU, Log


def diverge(fault: str, *, precision: str = "fp32", gain: float = 1e6, epochs: int = 4):
    """Train in this process until the guard ends it."""
    about = {
        "study": {
            "objective": FRAGILE,
            "source": source_hash(objective),
            "size": "tiny",
            "epochs": epochs,
            "problem_seed": 0,
            "options": {"fault": fault, "pause_s": "0"},
        },
        "trial": 3,
        "params": {"gain": gain},
        "seed": 11,
    }
    plan = Plan(epochs=epochs, precision=precision, device=CPU, metric="error", about=about)
    with pytest.raises(Divergence) as raised:
        engine.train(build(about, CPU, objective), plan, Log())
    return raised.value


def on_disk(verdict: Divergence, folder: Path) -> dict:
    path = folder / "step.pt"
    torch.save(dict(verdict.saved), path)
    return saved_step.read(path.read_bytes(), "step.pt")


def again(file: dict, *, step: int | None = None) -> replay.Replayed:
    return replay.replay(file, objective, device=CPU, step=step)


@pytest.mark.parametrize(
    ("fault", "precision", "reason", "epochs"),
    [
        ("batch", "fp32", "loss_nonfinite", 4),
        ("batch", "fp16", "loss_nonfinite", 4),
        ("root", "bf16", "grad_nonfinite", 4),
        ("fp16", "fp16", "precision_range", 4),
        ("metric", "fp32", "metric_nonfinite", 4),
        ("turns", "fp32", "stalled", 20),
    ],
)
def test_a_saved_step_replays_to_the_same_verdict(fault, precision, reason, epochs, tmp_path):
    verdict = diverge(fault, precision=precision, epochs=epochs)

    found = again(on_disk(verdict, tmp_path))

    assert verdict.reason == found.reason == found.recorded == reason
    assert found.detail == verdict.detail
    for name in ("term", "kind", "direction", "parameter", "handed_in", "operation", "where"):
        assert getattr(found.evidence, name) == getattr(verdict.evidence, name), name


def test_the_verdict_is_computed_and_not_read_back(tmp_path):
    verdict = diverge("batch")
    file = on_disk(verdict, tmp_path)
    file["batch"]["x"] = torch.ones_like(file["batch"]["x"])

    found = again(file)

    # Its run of bad steps is on record; that the batch alone is finite is what is found now.
    assert found.evidence.term is None
    assert found.reason == "stalled"


def test_with_a_clean_batch_in_its_place_the_verdict_is_benign(tmp_path):
    file = on_disk(diverge("batch"), tmp_path)

    assert again(file, step=1).reason is None
    assert again(file, step=6).reason == "loss_nonfinite"


def test_the_weights_are_those_of_the_step_and_not_fresh_ones(tmp_path):
    verdict = diverge("root")
    file = on_disk(verdict, tmp_path)

    found = again(file)

    fresh = build(file["about"], CPU, objective)
    assert not torch.equal(file["modules"]["net"]["weight"], fresh.modules["net"].weight)
    assert found.evidence.passes["fp32"].terms == verdict.evidence.passes["fp32"].terms


def test_a_file_that_is_no_saved_step_is_refused(tmp_path):
    whole = tmp_path / "step.pt"
    torch.save(dict(diverge("root").saved), whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"version": 99}, tmp_path / "later.pt")

    for name, words in (
        ("cut.pt", "cut off"),
        ("text.pt", "another kind of file"),
        ("later.pt", "another version"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            saved_step.read((tmp_path / name).read_bytes(), name)


def test_a_validations_verdict_takes_no_other_batch(tmp_path):
    file = on_disk(diverge("metric"), tmp_path)

    with pytest.raises(ConfigurationError, match="takes no batch"):
        again(file, step=1)


def test_another_objective_is_refused(tmp_path):
    file = on_disk(diverge("root"), tmp_path)

    with pytest.raises(ConfigurationError, match="'quadratic' cannot be built with"):
        replay.replay(file, load("quadratic"), device=CPU)


def test_an_objective_whose_network_changed_is_refused(tmp_path):
    file = on_disk(diverge("root"), tmp_path)
    file["modules"]["net"]["weight"] = torch.zeros(2, 2)

    with pytest.raises(ConfigurationError, match="saved weights do not fit"):
        again(file)


def test_of_a_view_the_part_that_it_shows_is_saved(tmp_path):
    verdict = diverge("root")
    whole = torch.zeros(1_000_000, 3)
    setting = saved_step.Setting(device=CPU, precision="fp32", metric="error", about={})
    reading = Reading(*verdict.saved["reading"])

    packed = saved_step.pack(
        build(verdict.saved["about"], CPU, objective),
        {"x": whole[16:32]},
        setting,
        reason="grad_nonfinite",
        reading=reading,
        rng={},
    )
    torch.save(packed, tmp_path / "step.pt")

    # 16 rows of 12 MB, and a network of four weights.
    assert (tmp_path / "step.pt").stat().st_size < 20_000


def test_an_objective_whose_batches_changed_is_refused(tmp_path):
    file = on_disk(diverge("root"), tmp_path)
    file["batch"]["z"] = file["batch"].pop("x")

    with pytest.raises(ConfigurationError, match="batches hold"):
        again(file)


def test_artifacts_are_kept_in_parts_and_given_back_whole(url, tmp_path):
    store = DatabaseArtifacts(connect(url))
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)

    with (tmp_path / "file").open("rb") as body:
        store.write("a", body)

    assert store.open_reader("a").read() == content
    store.remove("a")
    with pytest.raises(ArtifactNotFound):
        store.open_reader("a")
    with pytest.raises(ArtifactNotFound):
        store.remove("a")


def trials(url: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name="s", storage=url).get_trials()


def test_a_diverged_trial_of_a_study_replays_from_the_database_and_from_a_file(
    finished: Callable[[str], Program], capsys, tmp_path: Path
):
    surroundings = finished("diverged_batch").environment
    command, file = Command(surroundings, capsys), tmp_path / "step.pt"

    shown = command("replay", "0", "--save", str(file))
    clean = command("replay", "0", "--batch_of_step", "1")
    elsewhere = Command(environment(None, tmp_path / "another home"), capsys)
    untrusted = elsewhere("replay", str(file))
    from_file = elsewhere("replay", str(file), "--objective", FRAGILE, "--json")

    (trial,) = trials(surroundings["HPO_STORAGE"])
    assert trial.state == TrialState.PRUNED
    detail = trial.user_attrs["prune_detail"]
    assert detail.startswith("loss term 'misfit' is NaN, as 'x' of the batch is (4 steps in a row")
    assert "loss_nonfinite, as recorded" in shown.stdout
    assert detail in shown.stdout
    assert "fp64" in shown.stdout
    assert clean.returncode == 0, clean.stderr
    assert "verdict    benign" in clean.stdout
    # A file may come from anywhere: the code that it names runs when it is named here, too.
    assert untrusted.returncode == 2
    assert f"--objective '{FRAGILE}'" in untrusted.stderr
    told = json.loads(from_file.stdout)
    assert (told["verdict"], told["detail"]) == ("loss_nonfinite", detail)
    # No server was started for a file.
    assert [path.name for path in (tmp_path / "another home").iterdir()] == ["allowed"]


def test_what_cannot_be_replayed_is_said(finished: Callable[[str], Program], capsys):
    ask = Command(finished("healthy").environment, capsys)

    for words, *command in (
        ("was not pruned for a divergence (it is complete)", "replay", "0"),
        ("has no trial 7", "replay", "7"),
        ("there is no file 'seven'", "replay", "seven"),
        ("no study named 'x'", "replay", "0", "--study_name", "x"),
        ("cannot read the file", "replay", "."),
    ):
        refused = ask(*command)
        assert refused.returncode == 2
        assert words in refused.stderr
        assert len(refused.stderr.splitlines()) <= 2


def test_what_is_known_of_a_divergence_is_in_the_database(finished: Callable[[str], Program]):
    url = finished("diverged_root").environment["HPO_STORAGE"]

    with connect(url).connect() as connection:
        row = connection.exec_driver_sql("SELECT * FROM hpo.divergences").mappings().one()
    assert (row["trial_number"], row["ticket"], row["reason"]) == (0, 1, "grad_nonfinite")
    assert (row["term"], row["parameter"], row["operation"]) == ("root", "net.weight", "sqrt")
    lines = Path(FRAGILE).read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if ".sum().sqrt()" in text)
    assert row["evidence"]["where"] == f"fragile.py:{line} in loss"
    assert row["evidence"]["passes"]["fp64"]["grad_norms"]["root"]["all"] == "nan"
    assert len(row["evidence"]["scales"]) == 1
    assert row["detail"] == trials(url)[0].user_attrs["prune_detail"]


@pytest.mark.acceptance
def test_a_step_that_cannot_be_kept_costs_nothing_but_its_replay(
    finished: Callable[[str], Program], capsys
):
    program = finished("healthy")
    url = program.environment["HPO_STORAGE"]
    with connect(url).begin() as connection:
        connection.exec_driver_sql("DROP TABLE hpo.artifacts")
    ran = program(
        *("--objective", FRAGILE, "--fault", "root", "--study_name", "t", "--n_trials", "1"),
        *("--epochs_per_trial", "4", "--size", "tiny", "--workers", "1"),
    )

    refused = Command(program.environment, capsys)("replay", "0", "--study_name", "t")

    assert ran.returncode == 0, ran.stderr
    (trial,) = optuna.load_study(study_name="t", storage=url).get_trials()
    assert trial.user_attrs["prune_reason"] == "grad_nonfinite"
    assert refused.returncode == 2
    assert "could not be kept" in refused.stderr
    assert "gradient of 'root' is NaN" in refused.stderr


def test_the_dashboard_gives_out_the_saved_step(finished: Callable[[str], Program]):
    url = finished("diverged_root").environment["HPO_STORAGE"]
    (trial,) = trials(url)
    (meta,) = get_all_artifact_meta(trial, storage=optuna.storages.RDBStorage(url))
    server = make_dashboard(url, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    place = f"artifacts/1/{trial._trial_id}/{meta.artifact_id}"
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{place}") as answer:
        content = answer.read()
    server.shutdown()
    server.server_close()

    assert meta.filename == "trial_00000.step.pt"
    assert content == DatabaseArtifacts(connect(url)).open_reader(meta.artifact_id).read()
