"""A budget of hours: running trials end, open tickets stay, and a larger budget goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.program import Program
from tests.support.studies import states

pytestmark = pytest.mark.acceptance
# A trial of `slow` takes 2 s at least, and these are .7 s.
HOURS = "0.0002"
SENTENCE = "the study's budget is spent"


def test_a_spent_budget_ends_no_trial_begins_none_and_a_larger_one_goes_on(
    program: Program, url: str, slow: Path
):
    flags = ("--objective", str(slow), "--study_name", "s", "--epochs_per_trial", "4", "--json")
    ran = program("run", *flags, "--n_trials", "4", "--workers", "2", "--max_hours", HOURS)
    after = states(url, "s")
    # A worker without a run honours it, and so does a run that does not name it.
    alone = program("worker", "--study_name", "s", "--objective", str(slow))
    again = program("run", *flags, "--workers", "1")
    kept = states(url, "s")
    status = program("status", "--study_name", "s", "--json")
    more = program("run", *flags, "--workers", "2", "--max_hours", "inf")

    assert ran.returncode == alone.returncode == again.returncode == 0, ran.stderr + alone.stderr
    assert after == kept == {"COMPLETE": 2}
    result = json.loads(ran.stdout)
    assert (result["budget"]["open"], result["budget"]["complete"]) == (2, 2)
    assert not result["is_interrupted"]
    assert result["spent"]["hours"] >= float(HOURS) == result["spent"]["max_hours"]
    for said in (ran.stderr, alone.stderr, again.stderr):
        assert SENTENCE in said
        assert "2 trials stay open, and a larger --max_hours goes on" in said
    assert json.loads(status.stdout)["spent"]["max_hours"] == float(HOURS)
    assert more.returncode == 0, more.stderr
    assert SENTENCE not in more.stderr
    assert sum(states(url, "s").values()) == 4
