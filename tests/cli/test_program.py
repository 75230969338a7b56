"""The program without a study: help, and the storage's URL for others."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.program import Command, Program


@pytest.mark.acceptance
def test_help_is_instant_and_imports_nothing_heavy(executed: Program):
    shown = executed("--help")
    bare = executed()
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hpo", "--help"],
        capture_output=True,
        text=True,
        env=executed.environment,
        check=True,
    ).stderr

    assert shown.returncode == bare.returncode == 0
    assert "python -m hpo --n_trials 50" in shown.stdout
    assert bare.stdout == shown.stdout
    assert not re.search(r"\b(torch|optuna|sqlalchemy|rich)\b", imported)


def test_the_url_can_be_given_to_other_programs(command: Command, url: str):
    assert command("url").stdout.strip() == url
    assert command("url", "--for", "psql").stdout.strip() == url.replace("+psycopg2", "")
