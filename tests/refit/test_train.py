"""`train`: seeds as real processes, interrupted, killed, diverged; what is refused, and how."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch

import hpo
from hpo import cli
from hpo.api.train import resolve
from hpo.database.connection import connect
from hpo.display.train import TrainDisplay, confirmation
from hpo.errors import ConfigurationError, RunFailed
from hpo.launch.local import LocalLauncher
from hpo.refit import crew, recipe, weights
from hpo.refit.crew import TrainConfig, default_folder
from hpo.refit.events import Remark, SeedEnded, TrainProgress
from hpo.refit.recipe import Recipe
from hpo.refit.request import TrainRequest
from hpo.refit.seed_process import Job, train_seed
from hpo.search import configurations
from hpo.study.join import prepare_study
from hpo.study.request import RunRequest
from objectives import load
from tests.support.processes import kill_all, wait_until
from tests.support.program import HANGS_S, Program
from tests.support.toys import CPU

PARAMS = {"lr": 0.01, "curvature": 1.5}

# One weight, in ways that a test asks for: slowly, with a sign of life, diverging, failing.
OWN = """
import time
from pathlib import Path
from objectives.quadratic import Quadratic, QuadraticTask

class OwnTask(QuadraticTask):
    def batch(self, step):
        print("a line of the objective's own on standard output")
        if step >= 20 and Path({slow!r}).exists():
            Path({alive!r}).touch()
            time.sleep(0.3)
        return super().batch(step)

class Own(Quadratic):
    name = "own"
    def build(self, params, context):
        if context.seed == 1 and Path({fails!r}).exists():
            raise ValueError("as the test wants it")
        lr = 1e3 if context.seed == {diverges} else params["lr"]
        return OwnTask({{**params, "lr": lr}}, context)

objective = Own()
"""


def own(folder: Path, *, remark: str = "", diverges: int | None = None) -> Path:
    """An objective's file; with a file `slow` it takes 0.3 s a step from step 20 on."""
    path = folder / "own.py"
    signs = {name: str(folder / name) for name in ("alive", "fails", "slow")}
    path.write_text(OWN.format(**signs, diverges=diverges) + remark)
    return path


def params(folder: Path, **changes: float) -> Path:
    """A configuration's file, written by hand."""
    path = folder / "params.json"
    path.write_text(json.dumps({**PARAMS, **changes}))
    return path


def prepared(folder: Path, *, seeds: int) -> tuple[Recipe, TrainConfig]:
    """A training into the folder `out`, as the command line comes to it."""
    return resolve(
        TrainRequest(objective="quadratic", epochs=1, seeds=seeds),
        **{"file": params(folder), "study": None, "trial": None, "storage": None},
        **{"device": "cpu", "workers": 1, "out": folder / "out", "force": False},
    )


def same_weights(one: Path, other: Path) -> bool:
    pair = [weights.read(path).modules["net"]["weight"] for path in (one, other)]
    return torch.equal(*pair)


def job(folder: Path, *, epochs: int) -> Job:
    """The job of seed 0, as a training's parent writes it."""
    request = TrainRequest(objective="quadratic", epochs=epochs, seeds=1)
    found = recipe.of_file(params(folder), request, on_gpu=False)
    for name in ("out", "state"):
        (folder / name).mkdir(exist_ok=True)
    return Job(
        name="seed_0",
        objective="quadratic",
        about=json.loads(json.dumps(found.about(0))),
        precision="fp32",
        ema_decay=0.999,
        device="cpu",
        folder=str(folder / "out"),
        state=str(folder / "state"),
    )


@pytest.mark.acceptance
def test_the_best_of_a_study_is_trained_by_its_file_and_by_its_name(url: str, tmp_path: Path):
    saved, out = tmp_path / "best.json", tmp_path / "out"
    hpo.run(
        **{"objective": "quadratic", "n_trials": 1, "workers": 1, "epochs_per_trial": 2},
        **{"storage": url, "home": tmp_path / "home", "study": "s"},
    )
    assert cli.main(["best", "--storage", url, "--save", str(saved)]) == 0
    away = Program(None, tmp_path / "no home")
    flags = ("--epochs", "2", "--precision", "bf16", "--seeds", "1", "--out", str(out))
    first = away("train", str(saved), *flags, "--json")
    # The same from the study itself, and a seed more.
    how = {"storage": url, "epochs": 2, "precision": "bf16", "out": out}
    events: list[object] = []
    result = hpo.train(**how, seeds=2, on_event=events.append)
    with pytest.raises(ConfigurationError, match=r"epochs 2 \(now 3\).*--force"):
        hpo.train(**{**how, "epochs": 3})

    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["trial"], told["metric"], told["is_complete"]) == (0, "distance", True)
    assert "precision  bf16 (asked for)" in first.stderr
    # A precision that is not fp32 has seed 0 trained in fp32 beside.
    assert "seed 0 in fp32 is trained" in first.stderr
    assert result.confirmation.precision == "fp32"
    assert confirmation(result).startswith(("fp32 confirms: ", "fp32 differs: "))
    assert confirmation(replace(result, std=None)).startswith("fp32 gives: ")
    # The seed that was finished is not repeated.
    assert [event.label for event in events if isinstance(event, SeedEnded)] == ["seed 1"]
    assert result.seeds[0].value == told["seeds"][0]["value"]
    assert result.mean == sum(one.value for one in result.seeds) / 2
    # The file needed no database, and another study can try it as well.
    assert not (tmp_path / "no home").exists()
    assert configurations.read(saved) == [hpo.best(url).params]
    # What is written: a summary, a table, a picture.
    summary = json.loads((out / "training.json").read_text())
    assert [one["seed"] for one in summary["seeds"]] == [0, 1]
    assert "host" not in summary["environment"]
    rows = list(csv.DictReader((out / "training.csv").open()))
    assert [(row["seed"], row["precision"], row["epoch"]) for row in rows] == [
        (seed, precision, str(epoch))
        for seed, precision in (("0", "bf16"), ("1", "bf16"), ("0", "fp32"))
        for epoch in range(3)
    ]
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    # And files that give the network back.
    found = weights.read(weights.locate(out))
    assert (found.precision, found.epochs, found.about["study_name"]) == ("bf16", 2, "s")
    assert found.environment["torch"] == torch.__version__
    assert "host" not in found.environment
    task = weights.restore(found, CPU, load("quadratic"))
    with torch.no_grad():
        assert task.validate() == dict(found.metrics)
    assert not [*out.glob(".*.tmp"), *(out / ".state").glob("*.pt")]


@pytest.mark.acceptance
def test_interrupted_and_killed_it_ends_as_if_it_had_not_been(tmp_path: Path):
    objective, file, out = own(tmp_path), params(tmp_path), tmp_path / "trained"
    alive = tmp_path / "alive"
    away = Program(None, tmp_path / "no home")
    flags = ("--objective", str(objective), "--epochs", "25", "--seeds", "1", "--out", str(out))

    (tmp_path / "slow").touch()

    def begin() -> subprocess.Popen[str]:
        alive.unlink(missing_ok=True)
        process = away.start("train", str(file), *flags)
        wait_until(alive.exists)
        return process

    interrupted = begin()
    interrupted.send_signal(signal.SIGINT)
    said = interrupted.communicate(timeout=HANGS_S)
    kept = torch.load(out / ".state" / "seed_0.pt", weights_only=True)["step"]
    killed = begin()
    kill_all(killed.pid)
    killed.communicate(timeout=HANGS_S)
    (tmp_path / "slow").unlink()
    events: list[object] = []
    result = hpo.train(
        file, objective=objective, epochs=25, seeds=1, out=out, workers=1, on_event=events.append
    )
    whole = job(tmp_path, epochs=25)
    train_seed(whole, lambda *_: None, Event())

    assert interrupted.returncode == 130
    assert "the same command goes on from here" in said[1]
    assert "Traceback" not in said[1]
    assert 20 < kept < 200
    assert same_weights(result.file, Path(whole.folder) / "seed_0.pt")
    first = next(e.changed for e in events if isinstance(e, TrainProgress) and e.changed.epoch)
    assert first.epoch >= kept // 8
    epochs = [row["epoch"] for row in csv.DictReader((out / "training.csv").open())]
    assert epochs == [str(epoch) for epoch in range(26)]


@pytest.mark.acceptance
def test_a_seed_that_diverges_or_fails_is_told_and_the_others_go_on(tmp_path: Path):
    events: list[object] = []
    how = {
        **{"file": params(tmp_path), "objective": own(tmp_path, diverges=0), "epochs": 12},
        **{"ema": 0, "workers": 2, "out": tmp_path / "out", "on_event": events.append},
    }
    with pytest.raises(RunFailed, match=r"all 1 seeds diverged.*nonfinite.*--trial"):
        hpo.train(**how, seeds=1)
    (tmp_path / "fails").touch()
    with pytest.raises(RunFailed, match=r"seed 1 could not be .* ValueError: as the test wants"):
        hpo.train(**how, seeds=2)
    (tmp_path / "fails").unlink()

    result = hpo.train(**how, seeds=2)

    bad, good = result.seeds
    assert (bad.outcome, good.outcome) == ("diverged", "complete")
    assert bad.reason in ("loss_nonfinite", "grad_nonfinite")
    assert "distance" in bad.detail
    assert (result.best_seed, result.mean, result.std) == (1, good.value, None)
    ended = [event.result.outcome for event in events if isinstance(event, SeedEnded)]
    assert ended == ["diverged", "complete"]
    # The step that shows it replays, and without an average there is one state.
    assert bad.file == tmp_path / "out" / "seed_0.step.pt"
    assert torch.load(bad.file, weights_only=True)["about"]["seed"] == 0
    assert weights.read(good.file).last is None


@pytest.mark.acceptance
def test_seeds_of_an_objective_that_has_changed_are_named_each_time(tmp_path: Path):
    events: list[object] = []
    how = {"file": params(tmp_path), "objective": own(tmp_path), "epochs": 1, "workers": 1}
    how |= {"out": tmp_path / "out", "on_event": events.append}

    def noted(seeds: int) -> list[str]:
        events.clear()
        hpo.train(**how, seeds=seeds)
        return [event.text for event in events if isinstance(event, Remark)]

    assert noted(2) == []
    own(tmp_path, remark="# Another file.\n")
    note = "the objective's file has changed since seed 0, seed 1 ended; seeds may not compare"
    assert noted(3) == [note]
    # The summary is now of the new file, and the first two seeds are not.
    assert noted(3) == [note]

    summary = json.loads((tmp_path / "out" / "training.json").read_text())
    first, second, third = (one["source"] for one in summary["seeds"])
    assert first == second != third == summary["settings"]["source"]


@pytest.mark.acceptance
def test_a_signal_after_the_last_seed_has_ended_interrupts_nothing(tmp_path: Path):
    stop = Event()
    found, config = prepared(tmp_path, seeds=1)

    def emit(event: object) -> None:
        if isinstance(event, SeedEnded):
            stop.set()

    result = crew.train(found, config, LocalLauncher(os.environ), emit=emit, stop=stop)

    assert (result.is_complete, result.is_interrupted) == (True, False)


@pytest.mark.acceptance
def test_the_start_tells_the_seeds_that_there_will_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    crew.train(
        *prepared(tmp_path, seeds=2), LocalLauncher(os.environ), emit=lambda _: None, stop=Event()
    )
    found, config = prepared(tmp_path, seeds=1)

    TrainDisplay(found, config).begin()
    again = capsys.readouterr().err
    TrainDisplay(found, replace(config, force=True)).begin()
    over = capsys.readouterr().err

    assert "1, 2 seeds (1 asked for; the folder holds more)" in again
    assert "1, 1 seed\n" in over


@pytest.mark.acceptance
def test_a_keyboard_interrupt_leaves_the_finished_seeds_in_the_files(tmp_path: Path):
    out = tmp_path / "out"
    how = {"file": params(tmp_path), "objective": "quadratic", "epochs": 1, "workers": 1}

    def interrupt(event: object) -> None:
        if isinstance(event, SeedEnded):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hpo.train(**how, seeds=2, out=out, on_event=interrupt)

    summary = json.loads((out / "training.json").read_text())
    assert [one["seed"] for one in summary["seeds"]] == [0]
    assert (summary["best_seed"], summary["is_interrupted"]) == (0, True)
    assert (out / "training.csv").exists() and (out / "curves.png").exists()
    assert weights.locate(out) == out / "seed_0.pt"


@pytest.mark.acceptance
def test_what_cannot_be_written_is_told_and_nothing_is_lost(tmp_path: Path):
    mine, events = job(tmp_path, epochs=2), []
    final = Path(mine.folder) / "seed_0.pt"
    # A folder in its place: no right to ignore, also for root.
    final.mkdir()
    train_seed(mine, lambda event, values: events.append((event, values)), Event())
    assert events[-1][0] == "failed"
    assert "cannot be written" in events[-1][1]["text"]
    assert "make room" in events[-1][1]["text"]
    final.rmdir()
    events.clear()

    train_seed(mine, lambda event, values: events.append((event, values)), Event())

    assert events[-1][0] == "ended"
    assert all(values["is_earlier"] for event, values in events if event == "epoch")
    assert weights.read(final).metrics


def test_a_folder_that_cannot_be_one_or_is_in_use_is_refused(tmp_path: Path):
    how = {"objective": "quadratic", "epochs": 2, "seeds": 1}
    out = tmp_path / "out"
    (out / ".state").mkdir(parents=True)
    with (out / ".state" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another 'train' is at work"):
            hpo.train(params(tmp_path), **how, out=out)
    with pytest.raises(ConfigurationError, match="--out"):
        hpo.train(params(tmp_path), **how, out=tmp_path / "params.json" / "out")
    (out / "training.json").write_text("{")
    with pytest.raises(ConfigurationError, match="--force"):
        hpo.train(params(tmp_path), **how, out=out)


@pytest.mark.acceptance
def test_files_of_others_in_the_folder_stay_as_they_are(tmp_path: Path):
    how = {"file": params(tmp_path), "objective": "quadratic", "epochs": 1, "workers": 1}
    out = tmp_path / "out"
    out.mkdir()
    others = [".mine.tmp", ".notes.txt.17.tmp", "seed_best.pt", "seed_7.pt", "seed_7.step.pt"]
    hpo.train(**how, seeds=2, out=out)
    for name in (*others, ".seed_0.pt.17.tmp", ".training.json.17.tmp"):
        (out / name).write_text("text")
    (out / ".state" / ".seed_1.json.17.tmp").touch()
    (out / ".state" / "mine").mkdir()

    # One seed less, so that seed 1's file is of the earlier training alone.
    hpo.train(**how, seeds=1, out=out, force=True)

    own = ["training.json", "training.csv", "curves.png", "seed_0.pt", ".state"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*own, *others])
    assert {(out / name).read_text() for name in others} == {"text"}
    assert {path.name for path in (out / ".state").iterdir()} == {
        *("lock", "mine", "seed_0.json", "seed_0.log")
    }


@pytest.mark.parametrize("name", ["training.csv", "curves.png", "seed_3.pt", "seed_0.step.pt"])
def test_a_folder_with_results_of_something_else_is_refused(tmp_path: Path, name: str):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")

    # The second time, too, and with --force.
    for force in (False, False, True):
        with pytest.raises(ConfigurationError, match=rf"'{name}' and no training.*--out"):
            hpo.train(params(tmp_path), objective="quadratic", seeds=1, out=out, force=force)

    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of the command line for arguments that it refuses."""
    assert cli.main(["train", *arguments]) == 2, arguments
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_wrong_files_and_flags_get_an_answer_that_says_what_to_write(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    def file(content: object) -> str:
        path = tmp_path / "given.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    quadratic = ("--objective", "quadratic")
    settings = {"objective": str(own(tmp_path)), "source": "", "size": "tiny", "space": "wide"}
    whole = {
        **settings,
        **{"metric": "distance", "direction": "minimize", "epochs": 12, "precision": "fp32"},
        **{"problem_seed": 0, "seed": 0, "sampler": "tpe", "pruner": "percentile"},
        "on_precision_range": "prune",
    }
    for content, arguments, says in [
        (PARAMS, (), "--objective"),
        ({"lrr": 1}, quadratic, "no parameter 'lrr'; it has lr, curvature"),
        ({"lr": 1e9}, quadratic, "not within"),
        ([PARAMS, PARAMS], quadratic, "2 configurations"),
        ([], quadratic, "no configuration"),
        ("{", quadratic, "no JSON"),
        ({"params": PARAMS, "settings": settings}, quadratic, "best --save"),
        ({"params": PARAMS, "settings": whole}, (), "wants to run the code of"),
        (PARAMS, (*quadratic, "--size", "giant"), "tiny, base, full"),
        (PARAMS, (*quadratic, "--space", "huge"), "narrow, wide"),
        (PARAMS, (*quadratic, "--installation", "fixed"), "--installation"),
        (PARAMS, (*quadratic, "--device", "cuda:7"), "--device"),
        (PARAMS, ("--trial", "3"), "leave one of them out"),
    ]:
        assert says in refused(capsys, file(content), *arguments), content
    for arguments, says in [
        ((str(tmp_path / "none.json"), *quadratic), "No such file"),
        (("--seeds", "0"), "--seeds"),
        (("--epochs", "0"), "--epochs"),
        (("--ema", "1"), "--ema"),
        (("--trial", "-1"), "--trial"),
        (("--workers", "none"), "--workers"),
        (("--precision", "fp8"), "fp16"),
        (("--no_such_flag",), "--no_such_flag"),
    ]:
        assert says in refused(capsys, *arguments), arguments


def test_a_trial_that_is_not_there_is_told(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
):
    db = connect(url)
    prepare_study(db, RunRequest(objective="quadratic", n_trials=1), on_gpu=False)

    best = refused(capsys, "--storage", url)
    third = refused(capsys, "--storage", url, "--trial", "3")
    none = refused(capsys, "--storage", url, "--study_name", "none")

    assert "no complete trial yet" in best
    assert "no trial 3" in third
    assert "no study named 'none'" in none


def test_the_folder_is_named_after_what_is_trained():
    class Named:
        study_name, trial = "../mine-wide-tiny", 44

    assert default_folder(Named, None) == Path("trained/_mine-wide-tiny-trial_00044")
