"""Errors of an objective's hooks in a training and in an evaluation, whatever its class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.program import ROOT, Command, Program
from tests.support.raising import ERRORS

pytestmark = pytest.mark.acceptance
RAISING = str(ROOT / "tests" / "support" / "raising.py")


def train(program: Program, folder: Path, hook: str, error: str):
    """Train a configuration whose hook raises this error."""
    path = folder / "params.json"
    path.write_text(json.dumps({"hook": hook, "error": error}))
    length = ("--epochs", "1", "--seeds", "1", "--precision", "fp32", "--device", "cpu")
    return program("train", str(path), "--objective", RAISING, *length, "--out", str(folder / "t"))


@pytest.mark.parametrize(
    "error", ["SystemExit", "SystemExit: 2", "StopRequested: own", "KeyboardInterrupt"]
)
def test_a_seed_fails_by_what_a_hook_raises(program: Program, tmp_path: Path, error: str):
    ran = train(program, tmp_path, "loss", error)

    assert ran.returncode == 1, ran.stderr
    assert f"failed: {error}" in ran.stderr


def test_an_evaluation_fails_by_what_its_hook_raises(
    program: Program, command: Command, tmp_path: Path
):
    for error in ("SystemExit", "SystemExit: 2", "OperationalError: (sqlite3.OperationalError)"):
        assert error in ERRORS
        folder = tmp_path / str(len(error))
        folder.mkdir()
        trained = train(program, folder, "evaluate", error)
        assert trained.returncode == 0, trained.stderr

        ran = command("evaluate", str(folder / "t"), "--objective", RAISING)

        assert ran.returncode == 1
        assert f"evaluate() of objective 'raising' raised {error}" in ran.stderr
        assert "the database" not in ran.stderr
