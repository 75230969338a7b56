"""Controls: changes that must not matter, changes that must ruin the network, and its limits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from models.ris.estimators.ridge import greedy_maximum_likelihood, mdl_count
from models.ris.evaluation import (
    BOUND,
    MAXIMUM_LIKELIHOOD,
    MUSIC,
    NETWORK,
    RIDGE,
    Set,
    methods,
    scored_set,
)
from models.ris.scene.scenes import ArrayConfig, draw_installation
from models.ris.scene.streams import stream_generator
from models.ris.truth.scoring import Errors, mean_deviation
from objectives._evaluation import Table
from objectives.ris_evaluation.bench import SNRS_DB, Bench, network
from objectives.ris_networks.registry import built_again

_SNAPSHOTS = (1, 2, 4, 8, 16, 64, 256)
# This many scenes at each SNR distinguish 60 % from 70 %.
_COUNTED = 200


def controls(bench: Bench, sets: Sequence[Set]) -> Table:
    """Table of the network on other scenes, with other walls, and with other weights."""
    rows = [_row(NETWORK, sets, NETWORK)]
    (ours,) = bench.methods[-1:]
    again = [
        bench.scored(
            f"another test set, {snr:g} dB",
            bench.drawn(snr, seed=bench.asked.seed + 1),
            [ours],
            refine=False,
        )
        for snr in SNRS_DB
    ]
    rows.append(_row("network, another test set", again, NETWORK))
    for label, net in (
        ("network, untrained", _untrained(bench.net, bench.config)),
        ("network, random weights", _random(bench.net)),
    ):
        (changed,) = methods(bench.config, bench.ridge_estimator, network(net))[-1:]
        scored = [
            bench.scored(f"{label}, {one.label}", one.scenes, [changed], refine=False)
            for one in sets
        ]
        rows.append(_row(label, scored, NETWORK))
    rows += _elsewhere(bench)
    return Table(
        name="controls",
        title="Controls, over all SNR",
        head=("what", "median m", "± m", "ε", "± ε", "outliers %"),
        rows=rows,
        note="± is the standard error over scenes. An untrained network has its initial weights, "
        "with which the unrolled one is the plain posterior; random weights are drawn from "
        "N(0, 1). Another installation has a channel and codes that the network has never seen.",
    )


def _elsewhere(bench: Bench) -> list[Sequence[Any]]:
    """Rows for another wall, of the network, which has never seen it, and of untrained methods."""
    generator = stream_generator(bench.config.problem_seed + 1, "installation")
    wall = draw_installation(bench.config, generator).to(bench.device)
    names = (NETWORK, MAXIMUM_LIKELIHOOD, RIDGE)
    compared = methods(bench.config, bench.ridge(wall), network(bench.net))
    compared = [method for method in compared if method.name in names]
    moved = [
        bench.scored(
            f"another installation, {snr:g} dB",
            bench.drawn(snr, seed=bench.asked.seed, wall=wall),
            compared,
            refine=False,
        )
        for snr in SNRS_DB
    ]
    return [_row(f"{name}, another installation", moved, name) for name in names]


def _row(label: str, sets: Sequence[Set], method: str) -> Sequence[Any]:
    errors = Errors.joined([one.scored[method].plain for one in sets])
    epsilon_B = torch.cat([one.scored[method].epsilon_B for one in sets])
    return (
        *(label, errors.median_m, errors.median_deviation_m()),
        *(*mean_deviation(epsilon_B), 100 * errors.outlier_rate),
    )


def _untrained(net: nn.Module, config: ArrayConfig) -> nn.Module:
    """A network of the same shape with initial weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return built_again(net, config)


def _random(net: nn.Module) -> nn.Module:
    """A copy of the network with every parameter drawn from N(0, 1)."""
    changed = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return changed


def counts(bench: Bench, sets: Sequence[Set]) -> Table:
    """Table of how often the number of sources is right, where it is estimated."""
    rows = []
    for one in sets:
        bench.tell(f"{one.label}: number of sources")
        some = one.scenes.select(slice(0, _COUNTED))
        fits = greedy_maximum_likelihood(some.blinded(), bench.config)
        found_B = mdl_count(fits, bench.config.codes * bench.config.snapshots)
        excess_B = found_B - some.source_mask_BK.sum(-1)
        shares = [(excess_B == 0), (excess_B < 0), (excess_B > 0)]
        rows.append((one.label, *(100 * float(share.double().mean()) for share in shares)))
    return Table(
        name="counts",
        title="Number of sources, where it is not given",
        head=("scenes", "right %", "too few %", "too many %"),
        rows=rows,
        note="Maximum likelihood with 1…K sources, and the minimum description length. In all "
        "other tables the number is given to every method.",
    )


def snapshots(bench: Bench) -> Table:
    """Table over the number of snapshots under each code, with which plain MUSIC catches up."""
    names = (MUSIC, RIDGE, MAXIMUM_LIKELIHOOD, NETWORK)
    rows = []
    for count in _SNAPSHOTS[:4] if bench.asked.quick else _SNAPSHOTS:
        config = replace(bench.config, snapshots=count)
        net = built_again(bench.net, config)
        net.load_state_dict(bench.net.state_dict())
        scenes = bench.drawn(
            None, seed=bench.asked.seed, count=max(50, bench.count // 2), snapshots=count
        )
        all_methods = methods(config, bench.ridge_estimator, network(net))
        chosen = [method for method in all_methods if method.name in names]
        label = f"{count} snapshots a code"
        one = scored_set(label, scenes, config, chosen, tell=bench.tell, refine=False)
        found = [one.scored[name] for name in names]
        rows.append(
            (
                *(
                    count,
                    *(scored.plain.median_m for scored in found),
                    float(one.efficient_SD.median()),
                ),
                *(
                    *(float(scored.epsilon_B.mean()) for scored in found),
                    float(one.bounds.epsilon_B.mean()),
                ),
            )
        )
    columns = [f"{name}{kind}" for kind in (", median m", ", ε") for name in (*names, BOUND)]
    return Table(
        name="snapshots",
        title="More snapshots under each code, SNR over the whole range",
        head=("snapshots", *columns),
        rows=rows,
        note="The network was trained with one snapshot a code, and is told how many there are.",
    )
