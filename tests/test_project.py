"""The tree itself: style, types, layers, and that the documents say what is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BIN = Path(sys.executable).parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


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


def test_only_the_command_line_reads_argv_and_the_environment():
    for path in (ROOT / "hpo").rglob("*.py"):
        text = path.read_text()
        if path.name not in ("cli.py",):
            assert "os.environ" not in text, path
            assert "sys.argv" not in text, path
        if path.name not in ("cli.py", "display.py"):
            assert "print(" not in text.replace("_print(", ""), path


def test_sqlalchemy_is_spoken_where_it_may_be():
    speakers = {"storage.py", "database.py", "schema.py", "budget.py", "records.py"}
    # These hand an engine on, or catch what it raises.
    holders = {"study.py", "fleet.py", "worker.py"}
    for path in (ROOT / "hpo").rglob("*.py"):
        if "sqlalchemy" in path.read_text() and path.name not in speakers | holders | {"cli.py"}:
            raise AssertionError(path)
