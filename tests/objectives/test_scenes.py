"""The flagship on scenes from a file: what trains, what validates, and what is refused."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from hpo import cli
from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from models.ris import problem
from models.ris.files import split
from models.ris.files.file import SceneFile
from models.ris.files.writer import drawn_parts, write_scenes
from models.ris.scene.scenes import SIZES, Scenes, draw_installation, draw_scenes
from objectives import Context
from objectives.ris_covariance import objective
from objectives.ris_training.task import RisCovarianceTask
from tests.support.program import Command, Program
from tests.support.toys import CPU, Log

UNIT = SIZES["unit"]
COUNT = 1000


def write(path: Path, count: int = COUNT, *, seed: int = 0, is_shared: bool = True) -> Path:
    parts = drawn_parts(UNIT, count, stream="train", seed=seed, is_shared=is_shared)
    write_scenes(path, parts, count, wavelength_m=UNIT.wavelength_m)
    return path


def settle(path: Path | str, size: str = "unit", **options: str) -> dict[str, str]:
    given = {"installation": "fixed", "scenes": str(path), **options}
    return dict(objective.settle(given, size, "fp32"))


def build(path: Path | str, *, seed: int = 3, epochs: int = 2, **params) -> RisCovarianceTask:
    torch.manual_seed(seed)
    context = Context(
        device=CPU,
        size="unit",
        epochs=epochs,
        seed=seed,
        problem_seed=objective.problem_seed("unit"),
        options=settle(path),
    )
    return objective.build({**objective.defaults("wide"), "batch": 64, **params}, context)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "scenes.npz")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Files of other tests have the times of another second, perhaps the same."""
    split._opened.cache_clear()
    yield
    split._opened.cache_clear()


def keys(scenes: Scenes) -> set[complex]:
    return set(scenes.snapshots_BLMT[:, 0, 0, 0].tolist())


def problem_of(path: Path) -> problem.Problem:
    return problem.problem("unit", 0, "fixed", "cpu", SceneFile.open(path))


def test_the_parts_of_a_file_share_no_scene_and_are_as_long_as_told(path: Path):
    file = SceneFile.open(path)

    train, calibration, validation = split.split(file)

    assert (train, calibration, validation) == (range(850), range(850, 900), range(900, 1000))
    task, shared = build(path), problem_of(path)
    frozen = keys(shared.validation) | keys(shared.calibration)
    assert frozen == keys(file.scenes(range(850, 1000), UNIT)) and len(frozen) == 150
    trained = set().union(*(keys(task.batch(step).scenes) for step in range(40)))
    assert not trained & frozen
    # 2,560 draws of 850: some 42 are missed.
    assert 700 < len(trained) <= 850


def test_the_scenes_of_a_step_are_those_of_seed_and_step(path: Path):
    one, again, other = build(path), build(path), build(path, seed=4)
    again.batch(7)

    first = one.batch(2).scenes.sample_BLMM

    assert torch.equal(first, again.batch(2).scenes.sample_BLMM)
    assert not torch.equal(first, one.batch(3).scenes.sample_BLMM)
    assert not torch.equal(first, other.batch(2).scenes.sample_BLMM)


def test_the_ridge_is_fitted_to_the_files_wall_and_its_training_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Another wall than the size's.
    wall = draw_installation(UNIT, torch.Generator().manual_seed(99))
    scenes = draw_scenes(UNIT, 400, torch.Generator().manual_seed(1), installation=wall)
    write_scenes(tmp_path / "own.npz", [scenes], 400, wavelength_m=0.1)
    given = []
    fit = problem.RidgeMatching.fit
    monkeypatch.setattr(
        problem.RidgeMatching,
        "fit",
        lambda *args, **how: given.append((args, how)) or fit(*args, **how),
    )

    shared = problem.problem.__wrapped__(
        "unit", 0, "fixed", "cpu", SceneFile.open(tmp_path / "own.npz")
    )

    ((config, fitted), how) = given[0]
    assert config is UNIT
    assert torch.equal(fitted.channel_BMN, wall.channel_BMN)
    assert keys(how["scenes"]) == keys(scenes.select(slice(0, 340)))
    assert torch.equal(shared.validation.installation.codes_BLN, wall.codes_BLN)
    # The ridge of the wrong wall is no better than chance, 1 − K/N = .9.
    assert shared.ridge_error_B.mean() < 0.75


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_trial_learns_from_a_file(tmp_path: Path, is_shared: bool):
    path, log = write(tmp_path / "s.npz", is_shared=is_shared), Log()

    engine.train(build(path), Plan(epochs=2, precision="fp32", device=CPU, metric="J_db"), log)

    # 10 steps end at -4.4 and -5.6 dB with drawn scenes.
    assert log.epochs[-1].metrics["J_db"] < -2
    assert settle(path)["installation"] == ("fixed" if is_shared else "random")


def test_a_file_of_fewer_sources_than_the_size_has_is_filled_up(tmp_path: Path):
    (scenes,) = drawn_parts(UNIT, 200, stream="test", seed=0, is_shared=True)
    lone = scenes.source_mask_BK.sum(1) == 1
    one = scenes.select(lone.nonzero().squeeze(1))
    arrays = {
        "snapshots": one.snapshots_BLMT.numpy(),
        "codes": one.installation.codes_BLN[0].numpy(),
        "channel": one.installation.channel_BMN[0].numpy(),
        "wavelength_m": np.array(0.1),
        "positions": one.positions_BK3[:, :1].numpy(),
        "powers": np.full((len(one), 1), 7.0),
        "snr_db": one.snr_db_B.numpy(),
    }
    np.savez(tmp_path / "lone.npz", **arrays)

    found = SceneFile.open(tmp_path / "lone.npz").scenes(slice(None), UNIT)

    assert torch.equal(found.steering_BNK, one.steering_BNK)
    assert torch.equal(found.powers_BK, one.powers_BK)
    torch.testing.assert_close(found.noise_B, one.noise_B)


def test_a_study_keeps_the_absolute_path_and_what_tells_the_content(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(path.parent)

    kept = settle("scenes.npz", installation="random")

    assert kept == {
        "installation": "fixed",
        "scenes": f"{path}#{SceneFile.open(path).fingerprint}",
    }
    assert settle(kept["scenes"]) == kept
    copy = path.with_name("copy#0123456789abcdef")
    copy.write_bytes(path.read_bytes())
    assert settle(copy)["scenes"] == f"{copy}#{kept['scenes'][-16:]}"


def test_a_file_that_was_changed_is_noticed_by_settings_and_by_trials(path: Path):
    kept, task = settle(path)["scenes"], build(path)
    with torch.no_grad():
        task.validate()

    write(path, seed=1)

    for late in (lambda: settle(kept), task.validate):
        with pytest.raises(ValueError, match="has changed since the study was created with it"):
            late()
    # The trial goes on with what it began with; a file that is only touched is the same.
    write(path)
    with torch.no_grad():
        task.validate()
    assert settle(kept)["scenes"] == kept


def test_what_cannot_be_trained_on_is_refused_with_the_reason(tmp_path: Path, path: Path):
    arrays = dict(np.load(path))
    bare, short = tmp_path / "bare.npz", write(tmp_path / "short.npz", 99)
    np.savez(
        bare, **{n: a for n, a in arrays.items() if n not in ("positions", "powers", "snr_db")}
    )

    for given, size, says in (
        (path, "tiny", r"write --size unit \(--scenes\)"),
        (bare, "unit", r"holds no labels .* can be evaluated, not trained on \(--scenes\)"),
        (short, "unit", r"holds 99 scenes; 100 are the least .* \(--scenes\)"),
        (tmp_path / "none", "unit", r"No such file or directory \(--scenes\)"),
    ):
        with pytest.raises(ValueError, match=says):
            settle(given, size)


def test_an_evaluation_gets_all_scenes_or_those_held_out(path: Path, tmp_path: Path):
    kept, other = settle(path)["scenes"], write(tmp_path / "other.npz", 120, seed=1)
    copy = tmp_path / "copy.npz"
    copy.write_bytes(path.read_bytes())

    everything, held_out, strange, few = (
        split.samples(path, UNIT),
        split.samples(copy, UNIT, trained_on=kept),
        split.samples(other, UNIT, trained_on=kept),
        split.samples(path, UNIT, most=30),
    )

    assert (len(everything.scenes), everything.is_held_out, everything.has_labels) == (
        1000,
        False,
        True,
    )
    assert held_out.is_held_out and keys(held_out.scenes) == keys(problem_of(path).validation)
    assert not strange.is_held_out and len(strange.scenes) == 120
    assert keys(few.scenes) == keys(SceneFile.open(path).scenes(range(970, 1000), UNIT))


@pytest.fixture(autouse=True)
def stop(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The event that signals would set; the tests' own process keeps its handlers."""
    event = threading.Event()
    module = importlib.import_module("hpo.cli.scenes")
    monkeypatch.setattr(module, "stop_on_signals", lambda: event)
    return event


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.main(["scenes", *args])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_writes_what_it_is_asked_for(tmp_path: Path, capsys):
    path = tmp_path / "s.npz"
    flags = ("--size", "unit", "--count", "300", "--stream", "test", "--seed", "2", "--half")

    code, out, err = run(capsys, str(path), *flags, "--installation", "random")

    assert code == 0, err
    assert "300 scenes of size unit, random installation, stream test, seed 2" in out
    file = SceneFile.open(path)
    assert len(file) == 300 and not file.has_one_wall
    (expected,) = drawn_parts(UNIT, 300, stream="test", seed=2, is_shared=False)
    found = file.scenes(slice(None), UNIT)
    assert torch.equal(found.positions_BK3.nan_to_num(), expected.positions_BK3.nan_to_num())


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("{there}",), "is there already; write --force to replace it"),
        (("{tmp}/no/s.npz",), "there is no folder"),
        (("{tmp}",), "it is a folder"),
        (("{tmp}/s.npz", "--objective", "quadratic"), "has no simulator to write samples of"),
        (("{tmp}/s.npz", "--objective", "nothing"), "no objective named 'nothing'"),
        (("{tmp}/s.npz", "--size", "giant"), "use one of unit, tiny, base, full (--size)"),
        (("{tmp}/s.npz", "--count", "0"), "--count"),
        (("{tmp}/s.npz", "--stream", "validation"), "'train', 'test'"),
        (("{tmp}/s.npz", "--stream", "test", "--seed", "4096"), "write 0 to 4095 (--seed)"),
        (("{tmp}/s.npz", "--installation", "sideways"), "'fixed', 'random'"),
        (("{tmp}/s.npz", "--scenes", "x.npz"), "leave --scenes out"),
        (("{tmp}/s.npz", "--no_such_flag"), "--no_such_flag"),
    ],
)
def test_a_wrong_command_is_told_what_to_write(tmp_path: Path, capsys, args, says: str):
    there = tmp_path / "there.npz"
    there.write_text("dear")

    code, _, err = run(capsys, *(arg.format(tmp=tmp_path, there=there) for arg in args))

    assert code == 2
    assert says in err
    assert [one.name for one in tmp_path.iterdir()] == ["there.npz"]
    assert there.read_text() == "dear"


def test_a_command_that_is_stopped_leaves_nothing(tmp_path: Path, capsys, stop: threading.Event):
    stop.set()

    code, _, err = run(capsys, str(tmp_path / "s.npz"), "--size", "unit")

    assert code == 130
    assert "stopped after 0 of 10,000 scenes" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.acceptance
def test_a_study_trains_on_a_file_and_notices_another_in_its_place(
    program: Program, command: Command, url: str, tmp_path: Path
):
    path = tmp_path / "s.npz"
    flags = ("--objective", "ris_covariance", "--size", "unit", "--study_name", "s")
    once = ("--epochs_per_trial", "1", "--workers", "1")

    wrote = command("scenes", str(path), "--size", "unit", "--count", "1000")
    ran = program(*flags, *once, "--n_trials", "1", "--scenes", str(path))
    write(path, seed=1)
    refused = command(*flags, "--n_trials", "2")

    assert wrote.returncode == 0, wrote.stderr
    assert f"write --size unit --scenes {path} to train on them" in wrote.stdout
    assert ran.returncode == 0, ran.stderr
    assert f"scenes {path}#" in ran.stderr
    (trial,) = optuna.load_study(study_name="s", storage=url).get_trials()
    assert trial.value is not None and trial.value < 0
    assert refused.returncode == 2
    assert "has changed since the study was created with it" in refused.stderr
    assert "Traceback" not in refused.stderr
