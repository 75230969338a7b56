"""Each network as a trial: its parameters act, every precision trains, the guard names faults."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.guard import replay, saved_step
from hpo.guard.evidence import Divergence
from hpo.study.objective import source_hash
from hpo.task.build import build as built
from hpo.task.forward import loss_terms, total
from objectives import Choice
from objectives.ris_covariance import RisCovarianceTask, objective
from objectives.ris_networks.registry import NETWORKS
from tests.support.toys import CPU, Log, weights

EPOCHS = 8
# The smallest of what is searched, where a test's claim does not depend on size.
SMALL = {
    "unrolled": {"layers": 1, "width": 32, "batch": 64},
    "transformer": {"width": 0.5, "batch": 64},
    "hybrid": {"layers": 1, "hypotheses": 32, "width": 32, "batch": 16},
}
every_network = pytest.mark.parametrize("network", NETWORKS)


def about(network: str, params=None, *, installation: str = "fixed") -> dict:
    """The description of a trial of the default configuration, as a worker has it."""
    wide = NETWORKS[network].spaces["wide"]
    return {
        "study": {
            "objective": "ris_covariance",
            "source": source_hash(objective),
            "size": "unit",
            "epochs": EPOCHS,
            "problem_seed": objective.problem_seed("unit"),
            "options": {"network": network, "installation": installation, "scenes": ""},
        },
        "trial": 0,
        "params": {**{name: spec.default for name, spec in wide.items()}, **(params or {})},
        "seed": 3,
    }


def build(network: str, params=None, *, installation: str = "fixed") -> RisCovarianceTask:
    torch.manual_seed(3)
    task = built(about(network, params, installation=installation), CPU, objective)
    assert isinstance(task, RisCovarianceTask)
    return task


def plan(precision: str = "fp32", *, epochs: int = EPOCHS, **told) -> Plan:
    return Plan(epochs=epochs, precision=precision, device=CPU, metric="J_db", **told)


def after_steps(task: RisCovarianceTask, count: int) -> torch.Tensor:
    trial = engine._Trial(task, plan())
    for step in range(count):
        trial.train_step(task.batch(step))
    return weights(task)


@cache
def of_the_default_after_6_steps(network: str) -> torch.Tensor:
    # The warm-up takes 4 of the 40 steps, and the schedule begins after it.
    return after_steps(build(network), 6)


def other_value(spec):
    if isinstance(spec, Choice):
        return next(choice for choice in spec.choices if choice != spec.default)
    return spec.high if spec.default != spec.high else spec.low


@pytest.mark.parametrize(
    ("network", "name"),
    [(network, name) for network, one in NETWORKS.items() for name in one.spaces["wide"]],
)
def test_every_searched_parameter_changes_the_weights_after_6_steps(network, name):
    wide = NETWORKS[network].spaces["wide"]
    default = of_the_default_after_6_steps(network)

    changed = after_steps(build(network, {name: other_value(wide[name])}), 6)

    # Another number of weights is a change, too.
    assert default.shape != changed.shape or not torch.equal(default, changed)


@every_network
@pytest.mark.parametrize("installation", ["fixed", "random"])
def test_backbone_and_head_train_on_one_wall_and_on_many(network, installation):
    task = build(network, SMALL[network], installation=installation)

    total(loss_terms(task, task.batch(0), device=CPU, precision="fp32")).backward()

    assert [group.name for group in task.groups] == ["backbone", "head"]
    held = [parameter for group in task.groups for parameter in group.parameters]
    assert {id(p) for p in held} == {id(p) for p in task.modules["net"].parameters()}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in held)


# Deviation of J between seeds over whole trials in fp32 (benchmarks/precision.py).
SEEDS_DB = {"unrolled": 0.04, "transformer": 0.12, "hybrid": 0.02}
# Epochs of a trial here. The transformer needs all 8: fp16 withholds 3 or 4 of its steps while the
# scale settles, most of them in the warm-up.
TRAINED = {"unrolled": 2, "transformer": EPOCHS, "hybrid": 2}


@cache
def j_in_fp32(network: str) -> float:
    exact = plan(epochs=TRAINED[network])
    return engine.train(build(network, SMALL[network]), exact, Log()).value


@every_network
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_ends_within_the_deviation_of_seeds(network, precision):
    expected = j_in_fp32(network)

    half = plan(precision, epochs=TRAINED[network])
    result = engine.train(build(network, SMALL[network]), half, Log())

    assert result.skipped <= (6 if precision == "fp16" else 0)
    # Where fp16 withheld steps it takes another path: over four seeds of the transformer J was up
    # to .2 dB better or worse, as seeds differ.
    assert abs(result.value - expected) < 2 * SEEDS_DB[network]


def diverged(task: RisCovarianceTask, precision: str, told: dict) -> Divergence:
    with pytest.raises(Divergence) as raised:
        engine.train(task, plan(precision, about=told), Log())
    return raised.value


@every_network
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_weight_that_is_nan_is_named_and_its_step_replays(network, precision, tmp_path):
    task = build(network, SMALL[network])
    name, weight = list(task.modules["net"].named_parameters())[-1]
    with torch.no_grad():
        weight.view(-1)[0] = math.nan

    verdict = diverged(task, precision, about(network, SMALL[network]))
    torch.save(dict(verdict.saved), tmp_path / "step.pt")
    file = saved_step.read((tmp_path / "step.pt").read_bytes(), "step.pt")
    again = replay.replay(file, objective, device=CPU)

    assert verdict.reason == again.reason == "loss_nonfinite"
    assert again.detail == verdict.detail
    assert f"as the weight 'net.{name}' is" in verdict.detail
    assert (verdict.evidence.term, verdict.evidence.kind) == ("subspace", "NaN")


@every_network
def test_a_rate_beyond_all_bounds_is_a_divergence_within_the_network(network):
    params = {**SMALL[network], "lr": 1e30}

    verdict = diverged(build(network, params), "fp32", about(network, params))

    assert verdict.reason == "loss_nonfinite"
    found = verdict.evidence
    assert (found.term, found.direction) == ("subspace", "forward")
    assert found.module is not None and found.module.startswith("net.")
    assert not found.passes["fp64"].is_finite
