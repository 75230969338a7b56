"""Tests that need a GPU. The command on a machine that has one: `python -m pytest -m cuda`."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.errors import StopRequested
from hpo.guard.evidence import Divergence
from hpo.task.validation import validated
from objectives import Context, Term, load
from objectives.ris_covariance import objective
from tests.support.program import Program
from tests.support.toys import Log, ToyTask, weights

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
CUDA = torch.device("cuda")


def build(**params):
    torch.manual_seed(3)
    context = Context(
        device=CUDA,
        size="unit",
        epochs=8,
        seed=3,
        problem_seed=objective.problem_seed("unit"),
        options={"installation": "fixed"},
    )
    return objective.build({**objective.defaults("wide"), **params}, context)


def plan(precision: str, **changes) -> Plan:
    return Plan(epochs=8, precision=precision, device=CUDA, metric="J_db", **changes)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_a_healthy_trial_trains_and_is_not_pruned(precision):
    log = Log()

    result = engine.train(build(), plan(precision), log)

    assert result.value < log.epochs[0].metrics["J_db"]
    assert result.skipped <= 10


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_a_true_nan_is_pruned_within_16_steps_and_named(precision):
    task = build()
    loss = task.loss

    def spoiled(outputs, batch):
        terms = dict(loss(outputs, batch))
        # Finite forward, 1/0 · 0 = NaN backward.
        terms["zeta"] = Term((outputs["log_noise"] * 0.0).square().sum().sqrt())
        return terms

    task.loss = spoiled

    with pytest.raises(Divergence, match="gradient of 'zeta' is NaN") as verdict:
        engine.train(task, plan(precision), Log())

    assert verdict.value.reason == "grad_nonfinite"


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_step_between_two_reads_waits_for_nothing(precision):
    task = build()
    trial = engine._Trial(task, plan(precision))
    for step in range(3):
        trial.train_step(task.batch(step))
    batch = task.batch(3)

    torch.cuda.set_sync_debug_mode("error")
    try:
        trial.train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    # A synchronisation would have raised before the step was counted.
    assert trial.step == 4


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_interrupted_trial_goes_on(precision, tmp_path):
    expected = engine.train(build(), plan(precision), Log())
    path = tmp_path / "trial.pt"
    with pytest.raises(StopRequested):
        engine.train(build(), plan(precision, checkpoint=path), Log(stop_after=13))
    resumed = build()

    result = engine.train(resumed, plan(precision, checkpoint=path), Log())

    # The same operations in the same order; atomics may differ in the last bits.
    assert abs(result.value - expected.value) < 0.05
    assert torch.isfinite(weights(resumed)).all()


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("interval", [1, 3])
def test_the_second_objective_trains_and_shows_its_grids(precision, interval):
    other = load("arc_prompt")
    options = {name: option.default for name, option in other.options.items()}
    context = Context(device=CUDA, size="unit", epochs=4, seed=3, problem_seed=0, options=options)
    torch.manual_seed(3)
    task = other.build({**other.defaults("wide"), "cache_interval": interval}, context)
    before, log = weights(task), Log()

    engine.train(
        task,
        Plan(epochs=4, precision=precision, device=CUDA, metric=other.metric, predictions=4),
        log,
    )

    assert not torch.equal(weights(task), before)
    assert [sample.error for sample in log.epochs[-1].samples] == [None] * 4
    assert all(norm > 0 for norm in log.epochs[1].grad_norms.values())


def test_autocast_of_a_gpu_reaches_no_validation():
    class Looking(ToyTask):
        def validate(self):
            self.seen = torch.is_autocast_enabled("cuda")
            return super().validate()

    task = Looking()

    with torch.autocast("cuda", dtype=torch.float16):
        validated(task, device=CUDA, metric="error")

    assert task.seen is False


def test_a_study_runs_on_the_gpu_in_fp16_by_default(program: Program, url: str):
    ran = program("--n_trials", "4", "--size", "unit", "--epochs_per_trial", "4", timeout=400)

    assert ran.returncode == 0, ran.stderr
    assert "fp16 (auto: a GPU)" in ran.stderr
    trials = optuna.load_study(study_name="ris_covariance-wide-unit", storage=url).get_trials()
    assert len(trials) == 4
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(t.user_attrs["gpu_seconds"] > 0 for t in trials)


def test_a_training_and_its_evaluation_run_on_the_gpu(program: Program, tmp_path: Path):
    out = tmp_path / "trained"
    ran = program("--n_trials", "2", "--size", "unit", "--epochs_per_trial", "2", timeout=400)
    assert ran.returncode == 0, ran.stderr

    trained = program("train", "--epochs", "2", "--seeds", "1", "--out", str(out), timeout=400)
    evaluated = program("evaluate", str(out), "--quick", "--device", "cuda", "--json", timeout=400)

    assert trained.returncode == 0, trained.stderr
    assert "fp32 confirms" in trained.stderr + trained.stdout or "fp32 gives" in trained.stdout
    assert evaluated.returncode == 0, evaluated.stderr
    assert (out / "evaluation" / "pseudospectrum.png").exists()
