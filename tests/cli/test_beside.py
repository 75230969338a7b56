"""An objective with a module in its folder: every command finds it, and notices that it changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.program import Program

pytestmark = pytest.mark.acceptance

MINE = """
from helper import f
from objectives import Evaluation, Table
from objectives.quadratic import Quadratic, QuadraticTask

class MineTask(QuadraticTask):
    def loss(self, outputs, batch):
        from lazy import G
        assert G == 3
        return super().loss(outputs, batch)

class Mine(Quadratic):
    name = "mine"

    def build(self, params, context):
        assert f(1) == 2
        return MineTask(params, context)

    def evaluate(self, task, context, asked):
        return Evaluation(tables=(Table(name="one", title="One", head=("f",), rows=[(f(21),)]),))

objective = Mine()
"""


def test_a_module_of_its_folder_is_found_by_each_command_and_named_when_changed(
    program: Program, tmp_path: Path
):
    folder, out = tmp_path / "mine", tmp_path / "out"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "helper.py").write_text("def f(v): return v * 2\n")
    (folder / "lazy.py").write_text("G = 3\n")
    training = ("train", "--epochs", "1", "--seeds", "1", "--out", str(out))
    named = ("--objective", str(folder / "mine.py"), "--workers", "1", "--epochs_per_trial", "2")

    checked = program("check", str(folder / "mine.py"))
    ran = program(*named, "--n_trials", "2")
    trained = program(*training)
    evaluated = program("evaluate", str(out), "--json")
    (folder / "helper.py").write_text("def f(v): return v + v\n")
    again = program(*named, "--n_trials", "2")
    (folder / "lazy.py").write_text("G = 1 + 2\n")
    later = program(*training)
    both = program("evaluate", str(out), "--json")

    done = (checked, ran, trained, evaluated, again, later, both)
    assert [one.returncode for one in done] == [0] * 7, [one.stderr for one in done]
    assert "has changed" not in ran.stderr + trained.stderr + evaluated.stderr
    assert json.loads(evaluated.stdout)["tables"]["one"] == [{"f": 42}]
    assert "the objective's 'helper.py' has changed since study 'mine-wide-tiny'" in again.stderr
    changed = "the objective's 'helper.py', 'lazy.py' have changed since"
    assert f"{changed} the study was created" in " ".join(later.stderr.split())
    assert f"{changed} seed 0 ended; seeds may not compare" in " ".join(later.stderr.split())
    assert f"note: {changed} the training" in both.stderr
