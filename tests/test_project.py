"""The tree itself: style, types, layers, and that the documents say what is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpo import cli
from hpo.search.pruners import PRUNERS
from hpo.search.samplers import SAMPLERS
from hpo.task.forward import PRECISIONS
from objectives import DEFAULT, names
from tests.support.program import ROOT

BIN = Path(sys.executable).parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports",),
    ],
    ids=lambda command: " ".join(command),
)
def test_the_tree_is_clean(command):
    checked = run(str(BIN / command[0]), *command[1:])

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_ci_runs_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]

    assert command in readme


def test_the_service_names_no_workload():
    # Letters of their own: not those of 'search' or 'BarColumn', nor of 'architecture'.
    name = re.compile(r"(?<![a-z])arc(?!h)|qwen", re.IGNORECASE)

    found = {path for path in (ROOT / "hpo").rglob("*.py") if name.search(path.read_text())}

    assert not found


def test_only_the_command_line_reads_argv_and_one_module_the_environment():
    for path in (ROOT / "hpo").rglob("*.py"):
        text = path.read_text()
        is_command_line = path.parent.name == "cli"
        # One reads it, the other restores what a trial has changed in it. The variable by which a
        # process's descendants are found is no setting.
        read = re.sub(r"os\.environ\.(setdefault|pop)\(MARK, ", "", text)
        assert "os.environ" not in read or path.name in ("environ.py", "process_system.py"), path
        # The keeper is a program of its own.
        if not is_command_line and path.name != "keeper.py":
            assert "sys.argv" not in text, path
        if not is_command_line and path.parent.name != "display":
            assert "print(" not in text.replace("_print(", ""), path


def test_sqlalchemy_is_spoken_where_it_may_be():
    # Rows are kept by these; a study is deleted and copied with all that belongs to it.
    speakers = {"database", "tickets"}
    of_study = ("copy", "deletion", "identity", "inheritance", "leftovers")
    speakers |= {f"study/{name}.py" for name in of_study}
    # These hand an engine on, or catch what it raises.
    holders = {"study/study.py", "study/join.py", "study/status.py", "study/overview.py"}
    holders |= {
        "worker/worker.py",
        "worker/references.py",
        "worker/heartbeat.py",
        "worker/border.py",
        "api/study.py",
    }
    holders |= {
        "cli/shared.py",
        "cli/studies.py",
        "cli/workers.py",
        "cli/replay.py",
        "dashboard/server.py",
    }
    found = set()
    for path in (ROOT / "hpo").rglob("*.py"):
        if re.search(r"^\s*(import|from) sqlalchemy", path.read_text(), re.MULTILINE):
            place = path.relative_to(ROOT / "hpo")
            found.add(place.parts[0] if place.parts[0] in speakers else place.as_posix())

    assert speakers <= found <= speakers | holders


def test_the_command_lines_choices_are_those_that_exist():
    options = {option.name: option for option in cli.commands.commands["run"].params}

    assert list(options["sampler"].type.choices) == ["auto", *SAMPLERS]
    assert list(options["pruner"].type.choices) == list(PRUNERS)
    assert list(options["precision"].type.choices) == ["auto", *PRECISIONS]
    assert DEFAULT in names()
