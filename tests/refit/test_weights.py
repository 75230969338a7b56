"""The file of a finished training: what it holds, what is refused and how, the way back."""

from __future__ import annotations

import json
import os
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hpo import files
from hpo.engine import checkpoint, checkpoint_files
from hpo.errors import ConfigurationError
from hpo.guard.evidence import Divergence
from hpo.refit import seed_process
from hpo.refit import weights as trained
from hpo.refit.weights import Trained
from hpo.task.saving import save
from objectives import load
from tests.support.toys import CPU

QUADRATIC = load("quadratic")
SETTINGS = {
    **{"objective": "quadratic", "source": "", "size": "tiny"},
    **{"epochs": 3, "problem_seed": 0, "options": {}},
}
PARAMS = {"lr": 0.01, "curvature": 1.0}
ABOUT = {"study": SETTINGS, "params": PARAMS, "seed": 0, "trial": 4, "study_name": "s"}


def finished(**changes) -> Trained:
    weight = {"weight": torch.tensor([[2.5]])}
    usual = Trained(
        about=ABOUT, precision="fp32", epochs=3, metrics={"distance": 0.5}, modules={"net": weight}
    )
    return replace(usual, **changes)


def test_a_file_comes_back_as_it_was_and_holds_no_code(tmp_path: Path):
    path = tmp_path / "seed_0.pt"
    last = {"net": {"weight": torch.tensor([[2.0]])}}

    trained.write(path, finished(last=last))

    assert trained.read(path) == finished(last=last)
    content = torch.load(path, weights_only=True)
    assert (content["format"], content["version"]) == ("hpo-trained", 1)
    assert list(tmp_path.iterdir()) == [path]


def test_without_an_average_there_are_no_last_weights(tmp_path: Path):
    trained.write(tmp_path / "a.pt", finished())

    assert "last" not in torch.load(tmp_path / "a.pt", weights_only=True)
    assert trained.read(tmp_path / "a.pt").last is None


def test_the_task_comes_back_in_evaluation_mode_with_the_weights():
    task = trained.restore(finished(), CPU, QUADRATIC)

    assert task.modules["net"].weight.item() == 2.5
    assert not task.modules["net"].training
    assert task.validate() == {"distance": 0.5}


def test_another_network_is_told_as_one():
    other = {"net": {"weight": torch.zeros(2, 2)}}

    for changed in (finished(modules=other), finished(modules={"body": other["net"]})):
        with pytest.raises(ConfigurationError, match="--objective"):
            trained.restore(changed, CPU, QUADRATIC)


@pytest.mark.parametrize("modules", [[1], 3, None, {"net": 3}, {"net": {"weight": "text"}}])
def test_what_holds_no_weights_is_refused(modules):
    with pytest.raises(ConfigurationError, match="--objective"):
        trained.restore(finished(modules=modules), CPU, QUADRATIC)


def test_weights_that_are_not_finite_are_refused():
    nan = finished(modules={"net": {"weight": torch.full((1, 1), torch.nan)}})

    with pytest.raises(ConfigurationError, match=r"not finite \('net.weight'\)"):
        trained.restore(nan, CPU, QUADRATIC)


def test_a_buffer_may_be_infinite(monkeypatch):
    build = trained.build

    def with_mask(about, device, objective):
        task = build(about, device, objective)
        task.modules["net"].register_buffer("mask", torch.zeros(2))
        return task

    monkeypatch.setattr(trained, "build", with_mask)
    weights = {"weight": torch.tensor([[2.5]]), "mask": torch.tensor([0.0, -torch.inf])}

    task = trained.restore(finished(modules={"net": weights}), CPU, QUADRATIC)

    assert task.modules["net"].mask.isinf().any()


def write_cases(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no finished training, and what is said of each."""
    whole = folder / "whole.pt"
    trained.write(whole, finished())
    for name, content in {
        "other": {"format": "hpo-trained", "version": 2},
        "lacking": {"format": "hpo-trained", "version": 1},
        "step": {"batch": {}, "reading": []},
        "weights": {"weight": torch.zeros(1)},
        "tensor": torch.zeros(1),
    }.items():
        torch.save(content, folder / f"{name}.pt")
    (folder / "cut.pt").write_bytes(whole.read_bytes()[:900])
    content = whole.read_bytes()
    # Of half a file torch's own reader raises an OSError: "Invalid argument".
    (folder / "half.pt").write_bytes(content[: len(content) // 2])
    # Another weight, finite, as a bad copy or disk leaves it: the checksum alone tells.
    changed = content.replace(struct.pack("<f", 2.5), struct.pack("<f", 2.75))
    assert changed != content
    (folder / "changed.pt").write_bytes(changed)
    (folder / "text.pt").write_text("no torch file")
    (folder / "empty.pt").touch()
    checkpoint.write(folder / "trial.pt", {"trial": 7}, {"optimizer": {}, "rng": {}})
    said = {
        "none": "no file",
        "cut": "cut off",
        "half": "cut off",
        "changed": "damaged",
        "text": "another kind of file",
        "empty": "cut off",
        "other": "another version",
        "lacking": "lacks a part",
        "trial": "train --trial 7",
        "step": "python -m hpo replay",
        "weights": "weights alone",
        "tensor": "another torch file",
    }
    cases = {name: (folder / f"{name}.pt", text) for name, text in said.items()}
    return {**cases, "folder": (folder, "is a folder")}


def test_what_is_no_finished_training_is_told_for_what_it_is(tmp_path: Path):
    for path, text in write_cases(tmp_path).values():
        with pytest.raises(ConfigurationError) as raised:
            trained.read(path)

        assert text in str(raised.value)
        assert str(path) in str(raised.value)
        assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize(
    ("about", "lacks"),
    [
        (None, "'study'"),
        ({"params": PARAMS, "seed": 0}, "'study'"),
        ({**ABOUT, "study": ["tiny"]}, "'study'"),
        ({**ABOUT, "study": {**SETTINGS, "objective": None}}, "'objective'"),
        ({**ABOUT, "study": {"objective": "quadratic", "source": ""}}, "'size'"),
        ({**ABOUT, "study": {"objective": "quadratic", "size": "tiny"}}, "'source'"),
        ({**ABOUT, "params": 3}, "'params'"),
        ({**ABOUT, "seed": "0"}, "'seed'"),
        ({**ABOUT, "seed": True}, "'seed'"),
    ],
)
def test_a_file_that_does_not_say_what_it_is_of_is_refused(tmp_path: Path, about, lacks: str):
    path = tmp_path / "a.pt"
    trained.write(path, finished(about=about))

    with pytest.raises(ConfigurationError, match=f"does not say what it is of.*{lacks}") as raised:
        trained.read(path)

    assert str(path) in str(raised.value)


def test_a_checkpoint_of_something_unknown_is_told_as_a_checkpoint(tmp_path: Path):
    torch.save({"about": None, "optimizer": {}, "rng": {}}, tmp_path / "a.pt")

    with pytest.raises(ConfigurationError, match="the checkpoint of a trial"):
        trained.read(tmp_path / "a.pt")


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "seed_0.pt").mkdir()

    with pytest.raises(ConfigurationError, match="cannot be written"):
        trained.write(tmp_path / "seed_0.pt", finished())

    assert [path.name for path in tmp_path.iterdir()] == ["seed_0.pt"]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_told_though_torch_does_not_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trained, "save", lambda content, _: save(content, Path("/dev/full")))

    with pytest.raises(ConfigurationError, match="No space left on device"):
        trained.write(tmp_path / "seed_0.pt", finished())

    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "a.pt"
    path.write_text("before")

    def write(text: str, failure: BaseException | None = None) -> None:
        with files.renamed(path) as file:
            file.write_text(text)
            # Of this process alone: another one at the same file has a name of its own.
            assert str(os.getpid()) in file.name
            assert files.target_name(file.name) == "a.pt"
            if failure:
                raise failure

    # An interruption, too, which is no Exception.
    with pytest.raises(KeyboardInterrupt):
        write("half", KeyboardInterrupt())
    assert path.read_text() == "before"
    write("after")

    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_step_that_cannot_be_kept_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "seed_0.step.pt"
    path.write_text("an earlier one")

    def save(content: object, file: Path) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save)
    verdict = Divergence("stalled", "-", evidence={}, saved={"step": 3})

    with pytest.raises(KeyboardInterrupt):
        seed_process._keep_step(verdict, path)

    assert path.read_text() == "an earlier one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_trial_was_writing_goes_when_it_has_ended(tmp_path: Path):
    for number in (1, 2, 3):
        checkpoint.write(tmp_path / f"trial_{number:05d}.pt", {"trial": number}, {})
        (tmp_path / f".trial_{number:05d}.pt.17.tmp").touch()

    checkpoint_files.sweep(tmp_path, {1, 2}, keep=(2, 0))

    left = [".trial_00003.pt.17.tmp", "trial_00002.pt", "trial_00003.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_a_folder_means_its_best_seed(tmp_path: Path):
    def located(text: str) -> Path:
        (tmp_path / "training.json").write_text(text)
        return trained.locate(tmp_path)

    with pytest.raises(ConfigurationError, match=r"no training\.json"):
        trained.locate(tmp_path)
    assert located(json.dumps({"best_seed": 2})) == tmp_path / "seed_2.pt"
    with pytest.raises(ConfigurationError, match="no seed"):
        located(json.dumps({"best_seed": None}))
    for broken in ("{", "[]", "{}"):
        with pytest.raises(ConfigurationError, match="name the file itself"):
            located(broken)
    assert trained.locate(tmp_path / "a.pt") == tmp_path / "a.pt"
