"""The dashboard, as its users see it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.program import HANGS_S, Program
from tests.support.studies import STUDY

pytestmark = pytest.mark.acceptance


def test_the_dashboard_shows_the_study_in_a_browser_on_this_host_alone(
    finished: Callable[[str], Program], tmp_path: Path
):
    browser = shutil.which("chromium")
    program = finished("quadratic")
    process = program.start("dashboard", "--port", "0")
    try:
        address = re.match(r"http://127.0.0.1:\d+/", process.stderr.readline())[0]
        with urllib.request.urlopen(f"{address}api/studies") as answer:
            (study,) = json.load(answer)["study_summaries"]
        taken = program("dashboard", "--port", address.rstrip("/").rpartition(":")[2])
        assert study["study_name"] == STUDY
        assert taken.returncode == 2
        assert "is taken" in taken.stderr
        if browser is None:
            pytest.skip("no chromium here")
        page = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"),
                *("--virtual-time-budget=20000", "--dump-dom", f"{address}dashboard/studies/1"),
            ],
            capture_output=True,
            text=True,
            timeout=HANGS_S,
            check=True,
        ).stdout
    finally:
        process.kill()
        process.communicate(timeout=HANGS_S)

    assert STUDY in page
    assert "Best Trial" in page
    assert "prune_reason" in page or "distance" in page
