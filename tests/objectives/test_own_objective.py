"""The example of an own objective: sound, quick to learn from, and what the documents show."""

from __future__ import annotations

import json
import re

import optuna
import pytest
import torch
from optuna.trial import TrialState

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.task.build import build
from hpo.task.tensors import named_tensors
from objectives import Objective, Task, load
from tests.support.program import HANGS_S, ROOT, Command, Program, environment
from tests.support.toys import CPU, Log

PATH = "examples/own_objective.py"


def test_the_example_passes_every_check(capsys, tmp_path):
    checked = Command(environment(None, tmp_path), capsys)("check", PATH, "--json")

    found = json.loads(checked.stdout)
    assert checked.returncode == 0, checked.stderr
    assert {finding["state"] for finding in found["findings"]} == {"ok"}
    assert found["next_command"] == f"python -m hpo --objective {PATH} --n_trials 20"


@pytest.mark.acceptance
def test_the_example_is_a_study_of_the_program(program, url):
    done = program(
        *("--objective", PATH, "--n_trials", "3", "--workers", "1"),
        *("--epochs_per_trial", "3", "--pruner", "none"),
    )

    study = optuna.load_study(study_name="spirals-wide-tiny", storage=url)
    assert done.returncode == 0, done.stderr
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    values = [trial.value for trial in study.trials]
    assert study.best_value == max(values) > min(values)
    assert f"accuracy {study.best_value:.6g}" in done.stdout


def built(**params) -> tuple[Task, Objective]:
    objective = load(str(ROOT / PATH))
    params = {**objective.defaults("wide"), **params}
    settings = {"size": "tiny", "epochs": 12, "problem_seed": 0, "options": {}}
    return build({"study": settings, "params": params, "seed": 0}, CPU, objective), objective


@pytest.mark.parametrize(
    # A coin would be right in half of the cases.
    ("params", "low", "high"),
    [({}, 0.45, 0.75), ({"lr_body": 2e-2, "lr_head": 2e-2}, 0.97, 1.0)],
    ids=["default", "better"],
)
def test_its_search_space_holds_far_better_than_the_default(params, low, high):
    task, objective = built(**params)
    plan = Plan(epochs=12, precision="fp32", device=CPU, metric=objective.metric)

    result = engine.train(task, plan, Log())

    assert low < result.value < high


def test_it_shows_two_groups_a_second_figure_and_dtypes_of_its_own():
    task, objective = built()

    with torch.no_grad():
        figures = task.validate()

    dtypes = {tensor.dtype for tensor in named_tensors(task.batch(0)).values()}
    assert dtypes == {torch.complex64, torch.int64}
    assert [group.name for group in task.groups] == ["body", "head"]
    assert set(figures) > {objective.metric}


def blocks(page: str) -> list[str]:
    """The Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.S | re.M)


def test_the_documents_show_the_example_as_it_is():
    example = (ROOT / PATH).read_text()

    assert example in blocks("docs/own-objective.md")
    assert all(block in example for block in blocks("README.md"))


SLOW = """
import time
from pathlib import Path
from objectives.quadratic import Quadratic

class Slow(Quadratic):
    def references(self, context):
        while not Path({go!r}).exists():
            time.sleep(0.05)
        return {{"another method": 0.125}}

objective = Slow()
"""


@pytest.mark.acceptance
def test_a_study_that_ends_early_waits_for_its_references(program: Program, tmp_path):
    path, go = tmp_path / "slow.py", tmp_path / "go"
    path.write_text(SLOW.format(go=str(go)))

    process = program.start("--objective", str(path), "--n_trials", "1", "--workers", "2")
    said = []
    for line in process.stderr:
        said.append(line)
        if "what other methods reach is still being found" in line:
            go.touch()
    out, _ = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, said
    assert "distance of another method: 0.125" in out
    assert go.exists()
