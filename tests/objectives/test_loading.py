"""The places of an objective's code: its folder is on the path, nothing of ours is hidden by it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.study.objective import changed_files, differing, in_words, source_hash
from objectives import NoObjective, Objective, _folder, files_of, hidden_beside, load
from tests.support.program import ROOT

BASE = """
from objectives.quadratic import Quadratic
{head}
class Mine(Quadratic):
    name = "mine"
    {body}

objective = Mine()
"""


@pytest.fixture(autouse=True)
def path_as_before(monkeypatch: pytest.MonkeyPatch):
    """The path, the working folder and the modules of this process, put back at the end."""
    modules = dict(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(_folder, "_opened", list(_folder._opened))
    yield
    for name in set(sys.modules) - set(modules):
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith("/tmp"):
            del sys.modules[name]


def written(folder: Path, head: str = "", body: str = "pass", name: str = "mine.py") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(BASE.format(head=head, body=body))
    return str(folder / name)


def test_modules_and_packages_of_its_folder_are_imported_from_any_working_folder(tmp_path: Path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "__init__.py").write_text("")
    (tmp_path / "nets" / "net.py").write_text("from .width import WIDTH\n")
    (tmp_path / "nets" / "width.py").write_text("WIDTH = 64\n")
    (tmp_path / "near.py").write_text("FACTOR = 2\n")
    spec = written(tmp_path, "from near import FACTOR\nfrom nets.net import WIDTH")

    objective = load(spec)

    module = sys.modules[type(objective).__module__]
    assert (module.FACTOR, module.WIDTH) == (2, 64)
    assert list(files_of(objective)) == [
        *("mine.py", "near.py", "nets/__init__.py", "nets/net.py", "nets/width.py")
    ]


def test_two_objectives_have_each_their_own_module_of_one_name(tmp_path: Path):
    specs = []
    for number in (1, 2):
        specs.append(written(tmp_path / str(number), "from near import N", "metric_n = N"))
        (tmp_path / str(number) / "near.py").write_text(f"N = {number}\n")

    numbers = [load(spec).metric_n for spec in (*specs, *specs)]

    assert numbers == [1, 2, 1, 2]


def test_what_has_not_changed_is_imported_once_and_what_has_is_imported_again(tmp_path: Path):
    (tmp_path / "near.py").write_text("N = 1\n")
    spec = written(tmp_path, "from near import N", "metric_n = N")
    first = load(spec)

    assert load(spec) is first
    # Of the same size, within the same second.
    (tmp_path / "near.py").write_text("N = 2\n")
    assert load(spec).metric_n == 2
    assert not list(tmp_path.rglob("*.pyc"))


def test_a_class_of_its_file_can_be_pickled(tmp_path: Path):
    objective = load(written(tmp_path))

    assert type(objective).__module__ == "mine"
    assert type(pickle.loads(pickle.dumps(objective))) is type(objective)


# Names of Python's library, of this project, and with a dot, which no import finds in the folder.
@pytest.mark.parametrize("name", ["random.py", "test.py", "models.py", "a.b.py", "my-net.py"])
def test_a_file_of_any_name_is_loaded(tmp_path: Path, name: str):
    import random

    objective = load(written(tmp_path, name=name))

    assert isinstance(objective, Objective)
    assert sys.modules["random"] is random


@pytest.mark.parametrize(
    ("beside", "head"),
    [
        ("objectives.py", "from objectives import thing"),
        ("models/net.py", "from models.net import Net"),
        ("models/__init__.py", "from models import Net"),
        ("hpo.py", "from hpo import thing"),
        ("random.py", "from random import thing"),
    ],
)
def test_a_name_of_ours_that_it_imports_is_an_error_that_says_rename_it(
    tmp_path: Path, beside: str, head: str
):
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_text("thing = Net = 1\n")

    with pytest.raises(NoObjective, match=f"{beside.partition('/')[0]}' .*; rename it$"):
        load(written(tmp_path, head))


@pytest.mark.parametrize("name", ["torch", "numpy", "sympy", "optuna"])
def test_a_library_that_the_project_needs_is_not_to_be_hidden(tmp_path: Path, name: str):
    (tmp_path / f"{name}.py").write_text("")

    with pytest.raises(NoObjective, match=f"would hide the library '{name}'.*; rename it"):
        load(written(tmp_path))


@pytest.mark.parametrize("beside", ["objectives.py", "models/net.py", "code.py", "pytest.py"])
def test_what_it_does_not_import_may_have_any_name_but_of_a_needed_library(
    tmp_path: Path, beside: str
):
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_text("raise SystemExit\n")

    objective = load(written(tmp_path, "from models.linalg import eigh_signal"))

    hidden = [path.name for path in hidden_beside(objective)]
    ours = beside in ("objectives.py", "models/net.py")
    assert hidden == ([beside.partition("/")[0]] if ours else [])


def test_a_folder_of_files_that_are_no_python_hides_nothing(tmp_path: Path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "weights.pt").write_text("")

    assert isinstance(load(written(tmp_path)), Objective)


def test_a_part_of_a_package_is_to_be_named_as_a_module(tmp_path: Path, monkeypatch):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "near.py").write_text("N = 3\n")
    spec = written(tmp_path / "pack", "from .near import N", "metric_n = N")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NoObjective, match=r"name it as a module, 'pack\.mine:objective'"):
        load(spec)
    objective = load("pack.mine:objective")

    assert objective.metric_n == 3
    assert list(files_of(objective)) == ["pack/mine.py", "pack/__init__.py", "pack/near.py"]


def test_a_module_of_the_working_folder_is_found(tmp_path: Path, monkeypatch):
    written(tmp_path)
    (tmp_path / "objectives.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(tmp_path)

    assert load("mine:objective").name == "mine"


def test_an_import_that_fails_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "near.py").write_text("N = 1\n")
    spec = written(tmp_path, "import near\nnear.missing")

    with pytest.raises(AttributeError):
        load(spec)
    assert "mine" not in sys.modules
    written(tmp_path, "import near")
    assert load(spec).name == "mine"


# What a study of an earlier version holds is the hash of the class's file alone.
def test_changed_files_are_named(tmp_path: Path):
    (tmp_path / "near.py").write_text("N = 1\n")
    (tmp_path / "lazy.py").write_text("N = 1\n")
    spec = written(tmp_path, "import near", "def references(self, c):\n        import lazy")
    before = source_hash(load(spec))

    assert [one.partition("=")[0] for one in before.split()[1:]] == ["lazy.py", "near.py"]
    assert changed_files(load(spec), before) == []
    (tmp_path / "near.py").write_text("N = 2\n")
    assert changed_files(load(spec), before) == ["near.py"]
    (tmp_path / "lazy.py").write_text("N = 2\n")
    assert changed_files(load(spec), before) == ["lazy.py", "near.py"]
    assert changed_files(load(spec), before.split()[0]) == []
    written(tmp_path, "import near # again", "def references(self, c):\n        import lazy")
    assert changed_files(load(spec), before.split()[0]) == [""]
    assert in_words(["", "a b.py"]) == "the objective's file, 'a b.py' have changed"


def test_a_study_that_hashed_the_file_of_the_class_sees_no_change(tmp_path: Path):
    (tmp_path / "near.py").write_text(BASE.format(head="", body="pass"))
    (tmp_path / "mine.py").write_text("from near import Mine\nobjective = Mine()\n")
    objective = load(str(tmp_path / "mine.py"))
    own, near = source_hash(objective).split()

    assert changed_files(objective, near.partition("=")[2]) == []
    assert changed_files(objective, own) == []
    assert changed_files(objective, "0" * 16) == [""]
    assert differing("a b.py=1", "a b.py=2") == ["b.py"]
    assert differing("a b.py=1", "a c.py=2") == ["b.py", "c.py"]


def test_a_shipped_objective_is_its_file_alone():
    assert list(files_of(load("quadratic"))) == ["quadratic.py"]
    assert " " not in source_hash(load("ris_covariance"))


LOADERS = """
import torch
from near import FACTOR

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        import os, near, sys
        return index * near.FACTOR, os.getpid(), hash("text"), sys.flags.safe_path
"""
STARTED = """
import json, os, sys
import torch
from objectives import load

def main():
    objective = load(sys.argv[1])
    data = sys.modules[type(objective).__module__].Data()
    how = dict(num_workers=1, batch_size=4, multiprocessing_context=sys.argv[2])
    (found,) = torch.utils.data.DataLoader(data, **how)
    values, pids, hashes, safe = (part.tolist() for part in found)
    is_child = os.getpid() not in pids
    print(json.dumps([values, is_child, set(hashes) == {hash("text")}, safe]))

if __name__ == "__main__":
    main()
"""


@pytest.mark.acceptance
@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_data_loaders_find_it_however_they_are_started(tmp_path: Path, context: str):
    (tmp_path / "near.py").write_text("FACTOR = 3\n")
    # These are not to be taken for ours in the child, either.
    (tmp_path / "objectives.py").write_text("raise SystemExit\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.py").write_text("raise SystemExit\n")
    (tmp_path / "random.py").write_text("raise SystemExit\n")
    spec = written(tmp_path, f"{LOADERS}\nimport models.linalg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "start.py").write_text(STARTED)

    ran = subprocess.run(
        [sys.executable, "-P", str(elsewhere / "start.py"), spec, context],
        cwd=elsewhere,
        env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [[0, 3, 6, 9], True, True, [True] * 4]


def test_annotations_are_what_they_are_in_a_script(tmp_path: Path):
    spec = written(tmp_path, body="width: int = 3")

    objective = load(spec)

    assert type(objective).__annotations__["width"] is int


def test_what_lies_beside_ours_in_a_clone_hides_nothing_of_the_folder(tmp_path: Path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("")
    (tmp_path / "tests" / "own.py").write_text("FACTOR = 2\n")
    spec = written(tmp_path, "from tests.own import FACTOR\nimport models.linalg")
    code = "import sys; from objectives import load; print(load(sys.argv[1]).name)"

    ran = subprocess.run(
        [sys.executable, "-P", "-c", code, spec],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )

    assert ran.stdout == "mine\n", ran.stderr


def test_files_of_this_project_are_no_files_of_an_objective_in_a_clone(tmp_path: Path):
    """As in a clone, where the objective's folder is that of `models`."""
    script = """
import sys
from objectives import _folder, files_of, load
_folder._is_from = lambda folder, module: str(module.__name__).startswith("models.")
print(*files_of(load(sys.argv[1])))
"""
    spec = written(tmp_path, "import models.linalg")

    ran = subprocess.run(
        [sys.executable, "-c", script, spec], cwd=ROOT, capture_output=True, text=True
    )

    assert ran.stdout == "mine.py\n", ran.stderr
