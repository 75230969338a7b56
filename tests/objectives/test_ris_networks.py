"""The networks of the RIS objective: each keeps the contract, and a study keeps its network."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
import torch

from hpo.database.connection import connect
from hpo.errors import ConfigurationError, StudyMismatch
from hpo.study.join import Prepared, prepare_study
from hpo.study.request import RunRequest
from hpo.study.spaces import by_options
from models.ris.network.covariance_net import factor_from
from models.ris.problem import problem
from models.ris.scene.scenes import SIZES
from objectives import AUTO, Context, bound, complete
from objectives.ris_covariance import objective
from objectives.ris_networks.registry import MEASURED, NETWORKS, built_again, network_of
from tests.support.toys import CPU

UNIT = SIZES["unit"]


def built(name: str, **params: object) -> torch.nn.Module:
    """A network of the unit size, of its default configuration."""
    network = NETWORKS[name]
    defaults = {key: spec.default for key, spec in network.spaces["wide"].items()}
    torch.manual_seed(0)
    return network.build(UNIT, {**network.settled, **defaults, **params}).eval()


def join(url: str, **asked: object) -> Prepared:
    """The study as a run would create or join it, without workers."""
    given = {"objective": "ris_covariance", "size": "unit", "n_trials": 3, **asked}
    return prepare_study(connect(url), RunRequest(**given), on_gpu=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_maps_scenes_to_a_factor_and_noise(name: str):
    scenes = problem("unit", UNIT.problem_seed, "random", "cpu").validation.select(slice(0, 3))
    given, net = scenes.installation, built(name)

    with torch.no_grad():
        outputs = net(scenes.sample_BLMM, given.codes_BLN, given.channel_BMN)

    factor_BNR, noise_B = factor_from(outputs)
    assert factor_BNR.shape[:2] == (3, UNIT.elements)
    assert factor_BNR.shape[2] >= UNIT.max_sources
    assert noise_B.shape == (3,)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_groups_hold_all_of_its_parameters(name: str):
    net = built(name)

    parts = [*net.get_submodule("backbone").parameters(), *net.get_submodule("head").parameters()]

    assert {id(one) for one in parts} == {id(one) for one in net.parameters()}
    assert len(parts) == len(list(net.parameters()))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_settings_build_it_again(name: str):
    net = built(name)

    again = built_again(net, replace(UNIT, snapshots=4))
    again.load_state_dict(net.state_dict())

    assert type(again) is type(net)
    assert not again.training


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("space", ["narrow", "wide"])
def test_a_network_trains_with_what_its_spaces_suggest(name: str, space: str):
    under = bound(objective, {"network": name, "installation": "fixed", "scenes": ""})
    params = under.suggest(optuna.create_study().ask(), space)
    context = Context(
        device=CPU,
        size="unit",
        epochs=2,
        seed=3,
        problem_seed=UNIT.problem_seed,
        options={"network": name, "installation": "fixed", "scenes": ""},
    )
    task = under.build(params, context)
    batch = task.batch(0)

    terms = task.loss(task.forward(batch), batch)

    assert [group.name for group in task.groups] == ["backbone", "head"]
    assert all(torch.isfinite(term.value) for term in terms.values())
    assert set(NETWORKS[name].settled).isdisjoint(params)


def test_the_narrow_space_of_each_network_is_within_its_wide_one():
    for network in NETWORKS.values():
        narrow, wide = network.spaces["narrow"], network.spaces["wide"]
        assert list(narrow) == list(wide)
        for name, spec in narrow.items():
            if hasattr(spec, "choices"):
                assert set(spec.choices) <= set(wide[name].choices)
            else:
                assert wide[name].low <= spec.low <= spec.high <= wide[name].high


@pytest.mark.parametrize("size", objective.sizes)
def test_auto_is_a_network_and_says_why(size: str):
    options = complete(objective.options, {"network": AUTO})

    settled = objective.settle(options, size, "fp32")

    assert settled["network"] == MEASURED[size][0]
    assert settled["network"] in NETWORKS
    assert objective.reasons(settled, size)["network"]


def test_each_network_has_search_spaces_of_its_own():
    listed = {one.options.get("network"): one.spaces for one in by_options(objective)}

    # With one network alone no option decides.
    expected = {name: network.spaces for name, network in NETWORKS.items()}
    assert listed == (expected if len(NETWORKS) > 1 else {None: objective.spaces})


def test_a_study_without_the_option_is_the_unrolled_networks(url: str):
    made = join(url, study_name="s", options={"network": "unrolled"})
    options = {n: v for n, v in made.opened.config.options.items() if n != "network"}
    older = replace(made.opened.config, options=options)
    made.opened.storage.set_study_user_attr(made.opened.study_id, "config", older.stored())

    for asked in ({}, {"network": AUTO}, {"network": "unrolled"}):
        again = join(url, study_name="s", options=asked)
        assert (again.is_new, again.opened.config) == (False, older)
    for name in set(NETWORKS) - {"unrolled"}:
        with pytest.raises(StudyMismatch, match=rf"--network unrolled \(now {name}\)"):
            join(url, study_name="s", options={"network": name})


def test_a_network_that_there_is_not_is_refused(url: str):
    with pytest.raises(ConfigurationError, match="--network 'perceptron' is none of auto, unrol"):
        join(url, options={"network": "perceptron"})


def test_a_study_older_than_the_option_keeps_the_zooms_that_its_weights_were_trained_with():
    older = network_of({"installation": "fixed", "scenes": ""})

    assert older.name == "unrolled"
    assert older.settled["zoom_points"] == 27
    assert network_of({"network": "unrolled"}).settled["zoom_points"] == 9
