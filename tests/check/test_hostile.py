"""Hostile objectives: what their files claim, and some of them as `benchmarks/hostile.py` does."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import hostile
import pytest
from claims import Ended, Seen, claims_of, differences
from marked import Place

_GIVEN = '''"""Raises in a trial.

Right: that trial fails.
"""

EXIT, CHECK, VALUES, SAYS = 0, 0, "calm", "no data"


def expected(params):
    return "FAIL" if params["x"] > 0.5 else "COMPLETE"


raise SystemExit("importing it is the attack")
'''


def ended(x: float, state: str = "COMPLETE", value: float | None = 1.0, detail: str = "-") -> Ended:
    return Ended(state=state, params={"x": x}, value=value, reason="-", detail=detail)


CALM = [ended(0.1), ended(0.9), *[ended(0.2)] * 4]
RIGHT = Seen(
    code=0,
    lines="6 of 6 trials done",
    trials=[CALM[0], ended(0.9, "FAIL", None, "OSError: no data"), *CALM[2:]],
    check_code=0,
    check_lines="",
    left=[],
    seconds=1.0,
)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, None),
        ({"code": None}, "the run did not end"),
        ({"code": 1}, "exit 1, not 0"),
        ({"check_code": 2}, "check exits with 2, not 0"),
        ({"left": ["12 sleep 600"]}, "1 processes are left: 12 sleep 600"),
        ({"trials": None}, "there is no study"),
        ({"trials": CALM}, "trial 1 is COMPLETE, not FAIL"),
        ({"trials": RIGHT.trials[:5]}, "5 trials, not 6"),
        ({"trials": CALM[:1] * 6}, "no trial met what is hostile"),
        ({"trials": [ended(0.1, value=2.0), *RIGHT.trials[1:]]}, "trial 0 has 2.0, alone 1.0"),
        (
            {"trials": [CALM[0], ended(0.9, "FAIL", None), *CALM[2:]]},
            "the run does not say 'no data'",
        ),
    ],
)
def test_each_difference_from_a_files_claims_is_named(tmp_path: Path, changed, sentence):
    path = tmp_path / "given.py"
    path.write_text(_GIVEN)
    claims = claims_of(path)

    found = differences(claims, replace(RIGHT, **changed), CALM)

    assert sentence is None or sentence in found
    assert bool(found) == (sentence is not None)


def test_a_refusal_has_no_study(tmp_path: Path):
    path = tmp_path / "refused.py"
    path.write_text('"""Is refused.\n\nRight: no study.\n"""\nEXIT = 2\n')
    claims = claims_of(path)

    refused = replace(RIGHT, code=2, trials=None)

    assert not differences(claims, refused, CALM)
    assert differences(claims, replace(refused, trials=[]), CALM) == ["a study exists"]


@pytest.mark.parametrize("path", sorted(hostile.OWN.rglob("*.py")), ids=lambda path: path.stem)
def test_every_file_claims_an_outcome(path: Path):
    claims = claims_of(path)

    assert claims.title
    assert claims.right
    assert "EXIT" in claims.constants


@pytest.mark.acceptance
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hostile_objectives_have_the_outcome_that_they_claim(url: str, tmp_path: Path):
    at = Place(url=url, folder=tmp_path, out=tmp_path)
    calm = hostile.perform(at, hostile.OWN / "calm.py")
    assert not differences(claims_of(hostile.OWN / "calm.py"), calm, calm.trials)

    for name in ("reads_input", "arguments_edited"):
        path = hostile.OWN / f"{name}.py"
        seen = hostile.perform(at, path)

        assert not differences(claims_of(path), seen, calm.trials), seen.lines
