"""The flagship objective: its metric, its precision borders, and that nothing in it is idle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.task.forward import loss_terms, total
from models.ris import problem as ris_problem
from models.ris.estimators.ridge import RidgeMatching
from models.ris.network.covariance_net import factor_from
from models.ris.problem import problem
from models.ris.scene.scenes import SIZES, draw_scenes
from models.ris.scene.streams import stream_generator
from objectives import Context
from objectives.ris_covariance import objective
from objectives.ris_training.covariances import blend_covariances
from objectives.ris_training.task import RisCovarianceTask
from tests.support.program import Program
from tests.support.toys import CPU, Log, Operators, weights


def build(params=None, *, size: str = "unit", seed: int = 3, epochs: int = 8, **options):
    torch.manual_seed(seed)
    context = Context(
        device=CPU,
        size=size,
        epochs=epochs,
        seed=seed,
        problem_seed=objective.problem_seed(size),
        options={"installation": "fixed", **options},
    )
    return objective.build({**objective.defaults("wide"), **(params or {})}, context)


def test_every_parameter_of_the_network_receives_gradient():
    # A rank above the number of sources, so that the rest has columns of its own.
    task = build({"extra_rank": 2, "dropout": 0.1, "layers": 3})

    total(loss_terms(task, task.batch(0), device=CPU, precision="fp32")).backward()

    idle = [
        name
        for name, parameter in task.modules["net"].named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert idle == []


def test_the_groups_hold_every_parameter_once():
    task = build()

    held = [id(p) for group in task.groups for p in group.parameters]

    assert sorted(held) == sorted(id(p) for p in task.modules["net"].parameters())
    assert [group.name for group in task.groups] == ["backbone", "head"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_no_linear_algebra_sees_half_precision_and_the_forward_runs_in_it(precision):
    task, half = build(), {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    trial = engine._Trial(task, Plan(epochs=8, precision=precision, device=CPU, metric="J_db"))
    batch = task.batch(0)

    with Operators() as ops:
        trial.train_step(batch)

    narrow = {torch.float16, torch.bfloat16, torch.complex32}
    linalg = [(name, dtypes) for name, dtypes in ops.seen if "linalg" in name or "chol" in name]
    assert linalg
    assert not any(dtypes & narrow for _, dtypes in linalg)
    products = [dtypes for name, dtypes in ops.seen if "addmm" in name]
    assert any(half in dtypes for dtypes in products)


@pytest.mark.parametrize("narrow", [torch.float16, torch.complex32])
def test_labels_in_half_precision_give_the_fp32_loss(narrow):
    # Labels that fp16 holds exactly, in fp32 and in half: what is left is the arithmetic.
    task = build()
    batch = task.batch(0)
    dtype = {torch.float16: torch.float32, torch.complex32: torch.complex64}[narrow]
    name = {torch.float16: "powers_BK", torch.complex32: "steering_BNK"}[narrow]
    rounded = getattr(batch.scenes, name).to(narrow)

    def loss(label):
        from dataclasses import replace

        spoiled = batch._replace(scenes=replace(batch.scenes, **{name: label}))
        return total(loss_terms(task, spoiled, device=CPU, precision="fp32"))

    expected, actual = loss(rounded.to(dtype)), loss(rounded)

    assert actual.dtype == torch.float32
    assert actual.item() == expected.item()


def test_training_scenes_never_are_validation_scenes():
    shared = problem("unit", objective.problem_seed("unit"), "fixed", "cpu")
    frozen = torch.cat(
        [s.snapshots_BLMT.flatten(1) for s in (shared.validation, shared.calibration)]
    )

    for seed in (0, objective.problem_seed("unit"), 3):
        task = build(seed=seed)
        for step in range(8):
            drawn = task.batch(step).scenes.snapshots_BLMT.flatten(1)
            assert not (drawn[:, None, 0] == frozen[None, :, 0]).any()


def test_no_frozen_set_is_drawn_from_a_seed_of_training(monkeypatch):
    seeds: list[int] = []

    def recorded(*args, **kwargs):
        generator = stream_generator(*args, **kwargs)
        # torch's CPU generator uses the low 32 bits of a seed.
        seeds.append(generator.initial_seed() % 2**32)
        return generator

    monkeypatch.setattr("models.ris.problem.stream_generator", recorded)
    problem.__wrapped__("unit", objective.problem_seed("unit"), "fixed", "cpu")
    frozen, seeds[:] = set(seeds), []

    for seed in (0, 3, objective.problem_seed("unit"), *frozen):
        task = build({"batch": 64}, seed=seed % 2**31)
        for step in range(10):
            task.batch(step)

    assert len(frozen) >= 2
    assert len(set(seeds)) >= 40
    assert not frozen & set(seeds)


def test_training_draws_follow_the_trials_seed():
    one, other = build(seed=1), build(seed=2)

    first, second = (task.batch(0).scenes.snapshots_BLMT for task in (one, other))
    assert not torch.equal(first, second)
    assert torch.equal(first, build(seed=1).batch(0).scenes.snapshots_BLMT)


def numpy_j(task: RisCovarianceTask, beta: float) -> float:
    """J from scratch in numpy float64: ridge, hybrid, eigenvectors, spans, decibels."""
    config = task._config
    generator = stream_generator(config.problem_seed, "validation")
    shared = ris_problem.wall("unit", config.problem_seed, "fixed", "cpu")
    scenes = draw_scenes(config, 200, generator, installation=shared)
    loading = RidgeMatching.fit(config, shared).loading
    with torch.no_grad():
        task.modules["net"].eval()
        wall = scenes.installation
        outputs = task.modules["net"](scenes.sample_BLMM, wall.codes_BLN, wall.channel_BMN)
        F, s = (x.numpy() for x in factor_from(outputs))
    sensing = (wall.channel_BMN[0, None] * wall.codes_BLN[0, :, None]).numpy().astype(complex)
    sensing = sensing / np.sqrt(config.elements)
    samples = scenes.sample_BLMM.numpy().astype(complex)
    n, errors = config.elements, {"net": [], "ridge": []}
    # vec(S_l) = (conj Φ_l ⊗ Φ_l) vec R for column-stacked vec.
    A = np.concatenate([np.kron(P.conj(), P) for P in sensing])
    dual = A @ A.conj().T
    # The loading's unit is the mean diagonal of the real operator, which is that of the complex.
    mu = loading * np.trace(dual).real / len(dual)
    inverse = np.linalg.inv(dual + mu * np.eye(len(dual)))
    for b in range(len(scenes)):
        y = np.concatenate([S.flatten(order="F") for S in samples[b]])
        ridge = (A.conj().T @ (inverse @ y)).reshape(n, n, order="F")
        ridge *= n / np.trace(ridge).real
        hybrid = (1 - beta) * (F[b] @ F[b].conj().T + s[b] * np.eye(n)) + beta * ridge
        k = int(scenes.source_mask_BK[b].sum())
        Q = np.linalg.qr(scenes.steering_BNK[b, :, :k].numpy().astype(complex))[0]
        for name, R in (("net", hybrid), ("ridge", ridge)):
            U = np.linalg.eigh((R + R.conj().T) / 2)[1][:, -k:]
            errors[name].append(1 - np.linalg.norm(Q.conj().T @ U) ** 2 / k)
    return 10 * math.log10(np.mean(errors["net"]) / np.mean(errors["ridge"]))


@pytest.mark.acceptance
def test_j_recomputed_from_scratch_in_numpy_agrees_for_a_checkpoint(tmp_path: Path):
    path = tmp_path / "trial.pt"
    plan = Plan(epochs=8, precision="fp32", device=CPU, metric="J_db", checkpoint=path)
    log = Log()
    result = engine.train(build(), plan, log)
    task = build(seed=9)
    state = torch.load(path, weights_only=True)
    task.modules["net"].load_state_dict(state["modules"]["net"])

    recomputed = numpy_j(task, log.epochs[-1].metrics["beta"])

    # The ridge stands at 0 dB, and what is better stands below it.
    assert result.value < -2
    # float32 eigenvectors of 200 scenes; the mean error agrees to 1e-4 of it.
    assert abs(recomputed - result.value) < 5e-3


def test_the_metric_contains_no_searched_quantity():
    light, heavy = (
        build({"w_covariance": w, "w_likelihood": w, "w_contrast": w}) for w in (0.01, 3.0)
    )
    heavy.modules["net"].load_state_dict(light.modules["net"].state_dict())
    for task in (light, heavy):
        task.modules["net"].eval()

    with torch.no_grad():
        one, other = light.validate(), heavy.validate()

    assert one["J_db"] == other["J_db"]
    assert one["validation_loss"] != other["validation_loss"]


def test_the_blend_is_a_mean_of_both_covariances():
    a, b = torch.eye(2, dtype=torch.complex64), torch.ones(2, 2, dtype=torch.complex64)

    torch.testing.assert_close(blend_covariances(a, b, 0.25), 0.75 * a + 0.25 * b)


def test_the_exact_posterior_is_a_reference_where_the_scenes_are_those_it_was_computed_on():
    found, own_walls = (
        objective.references(build(installation=kind)._context) for kind in ("fixed", "random")
    )

    names = ["per-code MUSIC", "the exact posterior (limit)"]
    assert list(found) == names
    assert found[names[1]] < found[names[0]] - 1
    assert list(own_walls) == names[:1]


def test_a_wall_for_every_scene_trains_too():
    task, log = build(epochs=1, installation="random"), Log()

    engine.train(task, Plan(epochs=1, precision="fp32", device=CPU, metric="J_db"), log)

    assert len(task.batch(0).scenes.installation) == len(task.batch(0).scenes)
    assert log.epochs[-1].metrics["J_db"] < 0


@pytest.mark.acceptance
def test_the_full_size_trains_a_few_steps():
    task = build({"batch": 64, "extra_rank": 3}, size="full")
    trial = engine._Trial(task, Plan(epochs=1, precision="fp32", device=CPU, metric="J_db"))

    for step in range(2):
        trial.train_step(task.batch(step))

    config = SIZES["full"]
    assert (config.elements, config.antennas, config.codes) == (144, 16, 16)
    assert torch.isfinite(weights(task)).all()


@pytest.mark.acceptance
def test_a_study_in_fp16_on_a_cpu_prunes_nobody_for_an_overflow(program: Program, url: str):
    ran = program(
        *("--size", "unit", "--precision", "fp16", "--n_trials", "4", "--epochs_per_trial", "4"),
        *("--workers", "2", "--pruner", "none", "--study_name", "half", "--space", "narrow"),
    )

    assert ran.returncode == 0, ran.stderr
    trials = optuna.load_study(study_name="half", storage=url).get_trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    assert all(t.user_attrs["precision"] == "fp16" for t in trials)
    # The scaler starts too high for some of them: that is how it finds its scale.
    assert any(t.user_attrs["skipped_steps"] > 0 for t in trials)
    assert all(-20 < t.value < 5 for t in trials)
    assert "J_db of per-code MUSIC" in ran.stdout
    assert "J_db of the exact posterior (limit)" in ran.stdout
    assert "J_db of default configuration" in ran.stdout
