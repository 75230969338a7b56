"""`import hpo` as a notebook uses it: data comes back, nothing is printed, Ctrl-C works."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.database import patience
from tests.support.processes import children, wait_until
from tests.support.program import HANGS_S, ROOT, Program
from tests.support.studies import Held, states

NOTEBOOK = """
import hpo

assert hpo.__all__ == sorted(hpo.__all__)
said = []
result = hpo.run(
    objective="quadratic", n_trials=3, study="s", workers=1, epochs_per_trial=2, timeout=1000,
    set={"curvature": 1.5}, range={"lr": (1e-3, 1e-1, "log")}, enqueue={"lr": 0.05},
    on_event=said.append,
)
assert result.budget.ended == 3 and not result.is_interrupted
assert said and said[-1].budget.ended == 3
study = hpo.open(study="s")
best = hpo.best(study="s")
assert best.value == result.best.value == study.best().value
assert best.params["curvature"] == 1.5
rows = study.trials()
assert [row["number"] for row in rows] == [0, 1, 2]
assert rows[1]["params_lr"] == 0.05
assert study.status().budget.complete + study.status().budget.pruned == 3
assert study.config.fixed == {"curvature": 1.5}
assert len(study.optuna().trials) == 3
for wrong in (
    lambda: hpo.run(objective=object()),
    lambda: hpo.run(objective="quadratic", epoch=3),
    lambda: hpo.run(objective="quadratic", study_name="s"),
    lambda: hpo.run(objective="quadratic", n_trials="5"),
    lambda: hpo.run(objective="quadratic", precision="fp8"),
    lambda: hpo.run(objective="quadratic", timeout="5"),
    lambda: hpo.run(objective="quadratic", seed="a"),
    lambda: hpo.run(objective="quadratic", study="t", range={"lr": 0.01}),
    lambda: hpo.run(objective="quadratic", study="a\\0b"),
    lambda: hpo.run(objective="quadratic", study=3),
    lambda: hpo.run(objective="quadratic", enqueue=[3]),
    lambda: hpo.run(objective="quadratic", options={"nothing": "1"}),
    lambda: hpo.run(objective="quadratic", enqueue="no such file.json"),
    lambda: hpo.run(objective="quadratic", study="s", seed=9),
    lambda: hpo.best(study="none"),
    lambda: hpo.run(n_trials=0),
):
    try:
        wrong()
    except hpo.HpoError as error:
        assert str(error)
    else:
        raise AssertionError
"""

INTERRUPTED = """
import hpo

try:
    hpo.run(objective={objective!r}, n_trials=9, study="s", workers=1)
except KeyboardInterrupt:
    budget = hpo.open(study="s").status().budget
    assert budget.leased == 0 and 0 < budget.open, budget
    raise SystemExit(7)
"""


def notebook(program: Program, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=program.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.acceptance
def test_a_notebook_runs_opens_and_reads_a_study_and_nothing_is_printed(program: Program):
    output = (process := notebook(program, NOTEBOOK)).communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert output == ("", "")


@pytest.mark.acceptance
def test_an_interrupted_notebook_leaves_no_worker_and_keeps_the_trial(
    program: Program, url: str, held: Held
):
    held.hold(2)
    process = notebook(program, INTERRUPTED.format(objective=str(held.path)))
    wait_until(held.is_holding)
    workers = children(process.pid)

    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 7, output[1]
    assert output == ("", "")
    assert workers
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in workers)
    # The trial that was interrupted waits for the next call.
    assert states(url, "s")["RUNNING"] == 1


def test_a_run_that_does_not_begin_leaves_nothing_behind_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import hpo

    monkeypatch.delenv("HPO_STORAGE", raising=False)

    with pytest.raises(hpo.HpoError, match="which PostgreSQL cannot take"):
        hpo.run(objective="quadratic", home=tmp_path / "$")

    assert patience._outages.revive is None


def test_the_package_has_the_names_that_it_says():
    import hpo

    assert all(getattr(hpo, name) for name in hpo.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        hpo.nothing  # noqa: B018
