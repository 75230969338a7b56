"""Whatever a hook raises belongs to its trial, and to nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.errors import LeaseLost
from hpo.study.outcomes import attempt_of
from hpo.worker import attempt
from hpo.worker.border import Asked, own_error
from hpo.worker.pulse import Pulse
from tests.support.program import ROOT, Program
from tests.support.raising import ERRORS, FINE, HOOKS, PRUNED
from tests.support.studies import trials

RAISING = (
    *("--objective", str(ROOT / "tests" / "support" / "raising.py"), "--study_name", "r"),
    *("--epochs_per_trial", "1", "--workers", "1", "--pruner", "none", "--sampler", "random"),
)


def run(program: Program, path: Path, found: list[tuple[str, str]]):
    """Run these pairs of hook and error, with a trial that ends well after every fourth."""
    configurations, fine = [], [*ERRORS, *PRUNED]
    for position, (hook, error) in enumerate(found):
        if position % 4 == 0:
            configurations.append({"hook": FINE, "error": fine[position // 4]})
        configurations.append({"hook": hook, "error": error})
    path.write_text(json.dumps(configurations))
    number = str(len(configurations) + 1)
    return program(*RAISING, "--n_trials", number, "--enqueue", str(path))


@pytest.mark.acceptance
def test_every_class_of_error_fails_its_own_trial(program: Program, url: str, tmp_path: Path):
    found = [("loss", error) for error in ERRORS] + [("suggest", error) for error in ERRORS]

    ran = run(program, tmp_path / "all.json", found)

    assert ran.returncode == 0, ran.stderr
    assert "worker cpu:0" not in ran.stderr
    by_case = {(t.params["hook"], t.params["error"]): t for t in trials(url, "r")}
    for hook, error in found:
        trial = by_case[hook, error]
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["prune_detail"].startswith(error)
        assert "raising.py" in trial.user_attrs["traceback"]
    assert by_case["loss", "SystemExit"].user_attrs["prune_detail"] == "SystemExit"


@pytest.mark.acceptance
def test_every_hook_ends_its_own_trial(program: Program, url: str, tmp_path: Path):
    found = [(hook, error) for hook in HOOKS for error in ("SystemExit: 2", *PRUNED)]

    ran = run(program, tmp_path / "all.json", [*found, ("predict", "SystemExit: 2")])

    assert ran.returncode == 0, ran.stderr
    by_case = {(t.params["hook"], t.params["error"]): t for t in trials(url, "r")}
    for hook, error in found:
        trial = by_case[hook, error]
        reason = trial.user_attrs["prune_reason"]
        if error in PRUNED:
            assert (trial.state, reason) == (TrialState.PRUNED, error)
        else:
            assert (trial.state, reason) == (TrialState.FAIL, "-")
    assert by_case["validate", "objective"].user_attrs["prune_detail"] == "error over 3"
    # A prediction that fails costs its sample alone.
    assert by_case["predict", "SystemExit: 2"].state == TrialState.COMPLETE


@pytest.mark.acceptance
def test_a_trial_out_of_memory_beside_another_process_is_tried_once_more(
    program: Program, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The measurement has a test of its own, on a GPU; here is what follows from it. The program is
    # a fork of this process.
    monkeypatch.setattr(attempt, "used_by_others", lambda _: 5 << 30)

    ran = run(program, tmp_path / "one.json", [("loss", "oom")])

    assert ran.returncode == 0, ran.stderr
    found = [t for t in trials(url, "r") if t.params["hook"] == "loss"]
    assert [t.user_attrs["prune_reason"] for t in found] == ["oom"]
    log = next(program.home.rglob("worker*.log")).read_text()
    said = "out of memory while other processes used 5120 MiB of the GPU; the trial is tried once"
    assert log.count(said) == 1
    assert attempt_of(found[0]) == 2


def left_by(pulse: Pulse, work: Callable[[], object], *, phase: str) -> BaseException:
    """The error that a piece of work in this phase raises, after it left an attempt's block."""
    try:
        with pulse.closing():
            pulse.begin(phase)
            work()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raising(error: BaseException) -> Callable[[], object]:
    def work() -> None:
        raise error

    return work


def test_an_error_of_our_side_of_a_hook_is_ours_even_inside_of_it():
    pulse = Pulse()
    lost = LeaseLost("ours")

    class Losing:
        number = 3

        def suggest_float(self, name: str) -> float:
            assert pulse.phase == ""
            raise lost

    def suggest() -> None:
        trial = Asked(Losing(), pulse)
        assert trial.number == 3
        assert pulse.phase == "suggestion"
        trial.suggest_float("x")

    error = left_by(pulse, suggest, phase="suggestion")

    assert error is lost
    assert own_error(error, pulse) is lost


def test_a_hook_that_changes_our_error_into_its_own_does_not_hide_it():
    pulse = Pulse()
    lost = sa.exc.OperationalError("select", {}, Exception("gone"))

    def suggest() -> None:
        try:
            with pulse.outside():
                raise lost
        except Exception as error:
            raise ValueError("no value") from error

    error = left_by(pulse, suggest, phase="suggestion")

    assert isinstance(error, ValueError)
    assert own_error(error, pulse) is lost


@pytest.mark.parametrize(
    "error", [LeaseLost("own"), optuna.exceptions.StorageInternalError("own"), SystemExit(2)]
)
def test_the_same_classes_raised_by_a_hook_are_the_trials(error: BaseException):
    pulse = Pulse()

    assert own_error(left_by(pulse, raising(error), phase="step"), pulse) is None


@pytest.mark.parametrize("error", [LeaseLost("ours"), KeyboardInterrupt()])
def test_between_two_hooks_an_error_of_these_classes_is_ours(error: BaseException):
    pulse = Pulse()

    assert own_error(left_by(pulse, raising(error), phase=""), pulse) is error


def test_a_value_out_of_range_in_suggest_is_the_trials_though_the_trial_raised_it():
    pulse = Pulse()
    trial = Asked(optuna.create_study().ask(), pulse)

    error = left_by(pulse, lambda: trial.suggest_float("x", 1.0, 0.0), phase="suggestion")

    assert isinstance(error, ValueError)
    assert own_error(error, pulse) is None
