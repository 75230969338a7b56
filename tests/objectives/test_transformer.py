"""The transformer as a trial: every parameter acts, every precision trains."""

from __future__ import annotations

import pytest
import torch

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.task.forward import loss_terms, total
from objectives import Choice, Context
from objectives.ris_covariance import RisCovarianceTask, objective
from objectives.ris_networks.registry import NETWORKS
from tests.support.toys import CPU, Log, weights

WIDE = NETWORKS["transformer"].spaces["wide"]
EPOCHS = 8


def build(params=None, *, seed: int = 3, installation: str = "fixed") -> RisCovarianceTask:
    torch.manual_seed(seed)
    context = Context(
        device=CPU,
        size="unit",
        epochs=EPOCHS,
        seed=seed,
        problem_seed=objective.problem_seed("unit"),
        options={"installation": installation, "network": "transformer"},
    )
    defaults = {name: spec.default for name, spec in WIDE.items()}
    task = objective.build({**defaults, **(params or {})}, context)
    assert isinstance(task, RisCovarianceTask)
    return task


def plan(precision: str = "fp32") -> Plan:
    return Plan(epochs=EPOCHS, precision=precision, device=CPU, metric="J_db")


def after_steps(task: RisCovarianceTask, count: int) -> torch.Tensor:
    trial = engine._Trial(task, plan())
    for step in range(count):
        trial.train_step(task.batch(step))
    return weights(task)


def other_value(spec):
    if isinstance(spec, Choice):
        return next(choice for choice in spec.choices if choice != spec.default)
    return spec.high if spec.default != spec.high else spec.low


@pytest.mark.parametrize("name", list(WIDE))
def test_every_searched_parameter_changes_the_weights_after_6_steps(name):
    # The warm-up takes 4 of the 40 steps, and the schedule begins after it.
    default = after_steps(build(), 6)

    changed = after_steps(build({name: other_value(WIDE[name])}), 6)

    assert default.shape != changed.shape or not torch.equal(default, changed)


@pytest.mark.parametrize("installation", ["fixed", "random"])
def test_backbone_and_head_train_on_one_wall_and_on_many(installation):
    task = build(installation=installation)

    total(loss_terms(task, task.batch(0), device=CPU, precision="fp32")).backward()

    assert [group.name for group in task.groups] == ["backbone", "head"]
    held = [parameter for group in task.groups for parameter in group.parameters]
    assert {id(p) for p in held} == {id(p) for p in task.modules["net"].parameters()}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in held)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_ends_within_the_deviation_of_seeds(precision):
    exact = engine.train(build({"batch": 64}), plan(), Log())

    result = engine.train(build({"batch": 64}), plan(precision), Log())

    # fp16 withholds 3 or 4 of the 40 steps while its scale settles, most of them in the warm-up.
    assert result.skipped <= 6
    # So it takes another path: over four seeds J was .02 dB worse in the mean, each seed's up to
    # .2 dB better or worse, as seeds differ in fp32: by a deviation of .11 dB.
    assert abs(result.value - exact.value) < 2 * 0.11
