"""Any PostgreSQL by URL: a server of the system, of another version, that we did not set up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from tests.support.program import Program
from tests.support.system_server import system_server

pytestmark = pytest.mark.acceptance


@pytest.fixture
def system_url() -> Iterator[str]:
    """A database of the system's PostgreSQL, with a password and a role that is no superuser."""
    with system_server() as server:
        yield server.url


def test_a_study_runs_on_a_server_that_only_a_url_names(system_url: str, tmp_path: Path):
    program = Program(system_url, tmp_path / "home")

    ran = program("--objective", "quadratic", "--n_trials", "6", "--workers", "2")
    more = program("--objective", "quadratic", "--n_trials", "8")

    assert ran.returncode == more.returncode == 0, ran.stderr
    study = optuna.load_study(study_name="quadratic-wide-tiny", storage=system_url)
    assert len(study.get_trials()) == 8
    assert "a@b" not in ran.stdout + ran.stderr
    assert "a%40b" not in ran.stdout + ran.stderr
    # Nothing of the embedded server was set up.
    assert not (tmp_path / "home" / "postgres").exists()
